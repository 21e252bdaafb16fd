"""The flow over images: residual convolutions at several scales, with attention where it is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

from invattn._errors import check_name
from invattn.bijections import (
    ActNorm,
    AffinePrior,
    Bijection,
    Composed,
    HistogramNormal,
    Inverse,
    Linear1x1,
    MonotoneSpline,
    PatchTaper,
    Reshape,
    ResidualBijection,
    Split,
    Squeeze,
    Whitening,
)
from invattn.branches import CertifiedConvolution, Padding
from invattn.flows.architecture import built_from, check_conditions, settle, whole_numbers, with_classes
from invattn.flows.flow import FLOW_SOLVER, Flow, StandardNormal
from invattn.logdet import LogDetEstimator
from invattn.recipes import KINDS, Certified, Recipe, invertible_attention, make_recipe
from invattn.solvers import Solver

Positions = Sequence[tuple[int, int]] | str
"""(scale, after which block) for each attention block; or "interleaved:k"."""

IMAGE_MIXERS = (*KINDS, "convolution", "none")
"""What may stand at the attention positions: a kind, or the controls pointwise (P = I), one more convolution, none."""

_INTERLEAVED = "interleaved:"


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What may be chosen of a flow over images beside its shape, its blocks and its attention.

    Attributes:
        kernel_sizes: Of each convolutional branch, in pixels.
        activation: Of each convolutional branch, see :data:`invattn.lipschitz.ACTIVATIONS`.
        whitening: Side of the patches, in pixels, whose entries are whitened together first; 0: none.
        whitening_ridge: Added to their variances, in the units of the data squared.
        whitening_reach: Distance in pixels over which their covariances are tapered; 0: they are not.
        knots: Of the spline that makes each whitened entry normal, fitted and then learned; 0: no splines.
        channel_knots: Of a spline of each channel wherever ActNorm stands, instead of it; 0: ActNorm.
        first_squeeze: Side of the patches that become channels at the first scale; later scales take 2.
        split: Whether half of the channels leave after each scale but the last.
        prior_channels: Width of the learned prior of the channels that leave; 0: a standard normal.
        channel_mixing: Whether an invertible 1 x 1 convolution stands before every convolutional block.
        position_logits: Whether certified attention has learned logits by relative position.
        self_logit: Their start at i = j; a large one lets a block start as a pointwise map.
        num_heads: Heads of each attention block.
    """

    kernel_sizes: tuple[int, ...] = (3, 1, 3)
    activation: str = "lipswish"
    whitening: int = 0
    whitening_ridge: float = 1e-5
    whitening_reach: float = 0.0
    knots: int = 0
    channel_knots: int = 0
    first_squeeze: int = 2
    split: bool = True
    prior_channels: int = 32
    channel_mixing: bool = False
    position_logits: bool = True
    self_logit: float = 0.0
    num_heads: int = 1


@dataclass(frozen=True)
class ImageArchitecture(ImageOptions):
    """The options of :class:`invattn.flows.MultiscaleIResNet`, with those of :class:`ImageOptions`.

    Attributes:
        image_shape: (C, H, W) of one image.
        blocks: Convolutional blocks at each scale.
        hidden_channels: Of each convolutional branch.
        attention: A kind of :data:`invattn.KINDS`, ``convolution`` (one more block there), or ``none``.
        attention_positions: (scale, after which of its blocks) for each attention block, counted from 0, -1 the last;
            or ``interleaved:k``: after every k-th block of every scale.
        recipe: Form of the attention: a name or an object.
        lipschitz: c of every residual block. A block shortens no direction to less than 1 - c of its length: the 0.9
            of a single block holds a flow back, which has to gather mass. At 0.97 a block's inverse takes 569 plain
            steps to a relative 1e-6 in the worst case (153 at 0.9).
        levels: Grey levels of the data in [-0.5, 0.5), if they are few: each entry is then first made normal by its
            histogram; 0: it is not.
        classes: Classes of the samples, each with a Gaussian prior of its own: ``flow.given(labels=y)``; 0: one prior.
        context_channels: K of the context of each sample that all residual blocks depend on:
            ``flow.given(context)``; 0: none.
        solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
        log_det_estimator: Of all residual blocks; None is the library's default.

    Raises:
        ValueError: If a name is unknown, a position does not exist, or the image does not fit the scales.
    """

    image_shape: Sequence[int]
    _: KW_ONLY
    blocks: Sequence[int]
    hidden_channels: int = 64
    attention: str = "none"
    attention_positions: Positions = ((0, -1),)
    recipe: str | Recipe = "certified"
    lipschitz: float = 0.97
    levels: int = 0
    classes: int = 0
    context_channels: int = 0
    solver: Solver | None = None
    log_det_estimator: LogDetEstimator | None = None

    def __post_init__(self) -> None:
        check_name(self.attention, IMAGE_MIXERS, what="attention of an image flow")
        settle(self, blocks=whole_numbers(self.blocks, name="blocks"), kernel_sizes=tuple(self.kernel_sizes))
        settle(self, recipe=make_recipe(self.recipe), image_shape=tuple(self.image_shape))
        if not isinstance(self.attention_positions, str):
            settle(self, attention_positions=tuple(map(tuple, self.attention_positions)))
        if self.first_squeeze < 1 or self.whitening < 0 or self.prior_channels < 0:
            raise ValueError(
                "first_squeeze >= 1, whitening >= 0 and prior_channels >= 0 are needed; got "
                f"{self.first_squeeze}, {self.whitening} and {self.prior_channels}."
            )
        splines = (self.knots, self.channel_knots)
        if self.levels < 0 or self.whitening_reach < 0 or min(splines) < 0 or 1 in splines:
            raise ValueError(
                "levels >= 0, whitening_reach >= 0, and knots and channel_knots of 0 or at least 2 are needed; got "
                f"{self.levels}, {self.whitening_reach}, {self.knots} and {self.channel_knots}."
            )
        if self.knots and not self.whitening:
            raise ValueError("knots are those of splines of whitened entries: give whitening too.")
        check_conditions(self.classes, self.context_channels)
        _attention_blocks(self.attention_positions, self.blocks)
        self._check_image()

    def _check_image(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape must be (C, H, W), all at least 1; got {self.image_shape}.")
        _, height, width = self.image_shape
        scales = self.first_squeeze * 2 ** (len(self.blocks) - 1)
        factor = math.lcm(scales, self.whitening or 1)
        if height % factor or width % factor:
            near = [max(factor, round(side / factor) * factor) for side in (height, width)]
            what = f"{len(self.blocks)} scales" + (f" and whitening of {self.whitening}" if self.whitening else "")
            raise ValueError(
                f"images of {height} x {width} pixels do not fit {what}: both sides must be multiples of {factor}, "
                f"such as {near[0]} x {near[1]}."
            )

    def bijection(self) -> Composed:
        """Return a new bijection from images (B, C, H, W) to vectors (B, C H W)."""
        parts = [*self._front(), *self._scale(0, self.image_shape).parts()]
        return with_classes(parts, (math.prod(self.image_shape),), self.classes)

    def _front(self) -> list[Bijection]:
        """Return what is fitted to data: histograms of all entries, whitening of patches, splines of their entries."""
        shape, side = self.image_shape, self.whitening
        parts: list[Bijection] = []
        if self.levels:
            whole = Reshape(shape)
            parts += [whole, HistogramNormal(math.prod(shape), levels=self.levels), Inverse(whole)]
        if side == 0:
            return parts
        squeeze = Squeeze(side)
        inner = squeeze.output_shape(shape)
        reach = self.whitening_reach
        taper = PatchTaper(side=side, channels=shape[0], reach=reach) if reach else None
        parts += [squeeze, Whitening(inner[0], ridge=self.whitening_ridge, taper=taper)]
        if self.knots:
            parts.append(MonotoneSpline(inner[0], knots=self.knots))
        return [*parts, Inverse(squeeze)]

    def _scale(self, number: int, before: Sequence[int]) -> Composed:
        """Return scale ``number`` and all after it, for inputs of shape ``before``; the result is a vector."""
        squeeze = Squeeze(self.first_squeeze if number == 0 else 2)
        shape = squeeze.output_shape(before)
        parts = [squeeze, *self._blocks(number, shape), self._scaling(shape[0])]
        if number == len(self.blocks) - 1:
            return Composed([*parts, Reshape(shape)])
        if not self.split:
            return Composed([*parts, *self._scale(number + 1, shape).parts()])
        kept, width = (shape[0] + 1) // 2, self.prior_channels
        prior = AffinePrior(kept=kept, leaving=shape[0] - kept, hidden_channels=width) if width else None
        return Composed([*parts, Split(shape, self._scale(number + 1, (kept, *shape[1:])), kept=kept, prior=prior)])

    def _blocks(self, number: int, shape: Sequence[int]) -> list[Bijection]:
        parts: list[Bijection] = []
        wanted = _attention_blocks(self.attention_positions, self.blocks)
        for index in range(self.blocks[number]):
            parts.append(self._scaling(shape[0]))
            if self.channel_mixing:
                parts.append(Linear1x1(shape[0]))
            parts.append(self._convolution(shape, activate_first=index > 0))
            if self.attention != "none" and (number, index) in wanted:
                parts += [self._scaling(shape[0]), self._mixer(shape)]
        return parts

    def _scaling(self, channels: int) -> Bijection:
        return MonotoneSpline(channels, knots=self.channel_knots) if self.channel_knots else ActNorm(channels)

    def _convolution(self, shape: Sequence[int], *, activate_first: bool) -> Bijection:
        branch = CertifiedConvolution(
            channels=shape[0],
            hidden_channels=self.hidden_channels,
            kernel_sizes=self.kernel_sizes,
            activation=self.activation,
            activate_first=activate_first,
            padding=Padding("zero", grid=(shape[1], shape[2])),
            lipschitz=self.lipschitz,
            context_channels=self.context_channels,
        )
        solver, estimator = self.solver or FLOW_SOLVER, self.log_det_estimator
        return ResidualBijection(branch, solver=solver, log_det_estimator=estimator)

    def _mixer(self, shape: Sequence[int]) -> Bijection:
        if self.attention == "convolution":
            return self._convolution(shape, activate_first=True)
        recipe = make_recipe(self.recipe)
        if isinstance(recipe, Certified) and self.position_logits:
            recipe = replace(recipe, position_grid=tuple(shape[1:]), self_logit=self.self_logit)
        return invertible_attention(
            shape[0],
            kind=self.attention,
            recipe=recipe,
            lipschitz=self.lipschitz,
            num_heads=self.num_heads,
            solver=self.solver or FLOW_SOLVER,
            log_det_estimator=self.log_det_estimator,
            context_channels=self.context_channels,
        )


def _attention_blocks(positions: Positions, blocks: Sequence[int]) -> frozenset[tuple[int, int]]:
    """Return (scale, block) for each block that attention follows, both counted from 0.

    Raises:
        ValueError: If a position does not exist.
    """
    if isinstance(positions, str):
        step = positions.removeprefix(_INTERLEAVED)
        if step == positions or not step.isdigit() or int(step) < 1:
            raise ValueError(
                f"attention positions are pairs (scale, after which block), or interleaved:k with k >= 1; "
                f"got {positions!r}."
            )
        every = int(step)
        return frozenset((s, b) for s, number in enumerate(blocks) for b in range(every - 1, number, every))
    return frozenset(_resolve(tuple(pair), blocks) for pair in positions)


def _resolve(pair: tuple[int, ...], blocks: Sequence[int]) -> tuple[int, int]:
    if len(pair) == 2:
        scale, block = pair
        if -len(blocks) <= scale < len(blocks) and -blocks[scale] <= block < blocks[scale]:
            return scale % len(blocks), block % blocks[scale]
    raise ValueError(
        f"there is no attention position {pair} in {tuple(blocks)} blocks: give (scale, after which block), "
        f"scale 0 to {len(blocks) - 1}, -1 for the last."
    )


class MultiscaleIResNet(Flow):
    """An i-ResNet over images, with attention blocks between its convolutional blocks.

    First what is fitted to data, if asked for: histograms, whitening, splines. Then at each scale: Squeeze, its
    blocks, and a Split that sends half of the channels to the base and the others on. A block is ActNorm (and an
    invertible 1 x 1 convolution, if asked for) and x + g(x) with a certified convolution g; an attention block is
    ActNorm and :func:`invattn.invertible_attention`. ActNorm and all that is fitted start from data by
    :func:`invattn.bijections.initialize`. The base is a standard normal.

    Args:
        image_shape: (C, H, W) of one image.
        **options: The other fields of :class:`ImageArchitecture`, by name; ``blocks`` at least.

    Raises:
        ValueError: If a name is unknown, a position does not exist, or the image does not fit the scales.

    References:
        Zha et al. 2021, Sec. 4.2; Behrmann et al. 2019, Sec. 5.

    Example:
        >>> import torch
        >>> from invattn.flows import MultiscaleIResNet
        >>> flow = MultiscaleIResNet((3, 8, 8), blocks=(2, 2), hidden_channels=16, attention="dot_product")
        >>> flow.log_prob(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4])
    """

    @built_from(ImageArchitecture)
    def __init__(self, architecture: ImageArchitecture) -> None:
        chain = architecture.bijection()
        super().__init__(chain, StandardNormal(chain.output_shape(architecture.image_shape)))
        self.architecture = architecture
