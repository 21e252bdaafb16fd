"""What a multi-scale flow over images consists of, and how it is put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

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
from invattn.flows.flow import FLOW_SOLVER, check_conditions, with_classes
from invattn.logdet import LogDetEstimator
from invattn.recipes import KINDS, Certified, Recipe, invertible_attention
from invattn.solvers import Solver

Positions = Sequence[tuple[int, int]] | str
"""(scale, after which block) for each attention block; or "interleaved:k"."""

_INTERLEAVED = "interleaved:"


def attention_blocks(positions: Positions, blocks: Sequence[int]) -> frozenset[tuple[int, int]]:
    """Return (scale, block) for each block that attention follows, both counted from 0.

    Args:
        positions: Pairs, where -1 is the last; or ``interleaved:k`` for after every k-th block of every scale.
        blocks: Blocks at each scale.

    Raises:
        ValueError: If a position does not exist.

    Example:
        >>> sorted(attention_blocks("interleaved:2", (4, 3)))
        [(0, 1), (0, 3), (1, 1)]
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


IMAGE_MIXERS = (*KINDS, "convolution", "none")
"""What may stand at the attention positions: a kind, or the controls pointwise (P = I), one more convolution, none."""


@dataclass(frozen=True, kw_only=True)
class ImageArchitecture:
    """The options of :class:`invattn.flows.MultiscaleIResNet`, where each is described.

    Raises:
        ValueError: If a name is unknown, a position does not exist, or the image does not fit the scales.
    """

    image_shape: tuple[int, int, int]
    blocks: tuple[int, ...]
    hidden_channels: int = 64
    attention: str = "none"
    attention_positions: Positions = ((0, -1),)
    recipe: Recipe = field(default_factory=Certified)
    lipschitz: float = 0.97
    kernel_sizes: tuple[int, ...] = (3, 1, 3)
    activation: str = "lipswish"
    levels: int = 0
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
    classes: int = 0
    context_channels: int = 0

    def __post_init__(self) -> None:
        check_name(self.attention, IMAGE_MIXERS, what="attention of an image flow")
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"blocks must hold at least one number, all at least 1; got {self.blocks}.")
        if self.first_squeeze < 1 or self.whitening < 0 or self.prior_channels < 0:
            raise ValueError(
                "first_squeeze >= 1, whitening >= 0 and prior_channels >= 0 are needed; got "
                f"{self.first_squeeze}, {self.whitening} and {self.prior_channels}."
            )
        if self.levels < 0 or self.whitening_reach < 0 or min(self._splines()) < 0 or 1 in self._splines():
            raise ValueError(
                "levels >= 0, whitening_reach >= 0, and knots and channel_knots of 0 or at least 2 are needed; got "
                f"{self.levels}, {self.whitening_reach}, {self.knots} and {self.channel_knots}."
            )
        if self.knots and not self.whitening:
            raise ValueError("knots are those of splines of whitened entries: give whitening too.")
        check_conditions(self.classes, self.context_channels)
        attention_blocks(self.attention_positions, self.blocks)
        self._check_image()

    def bijection(self, *, solver: Solver | None, log_det_estimator: LogDetEstimator | None) -> Composed:
        """Return a new bijection from images (B, C, H, W) to vectors (B, C H W).

        Args:
            solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
            log_det_estimator: Of all residual blocks; None is the library's default.
        """
        return _Builder(self, FLOW_SOLVER if solver is None else solver, log_det_estimator).chain()

    def _splines(self) -> tuple[int, int]:
        return self.knots, self.channel_knots

    def _check_image(self) -> None:
        if min(self.image_shape) < 1:
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


@dataclass(frozen=True)
class _Builder:
    """Makes the parts of one flow."""

    options: ImageArchitecture
    solver: Solver
    log_det_estimator: LogDetEstimator | None

    def chain(self) -> Composed:
        shape = self.options.image_shape
        parts = [*self._front(shape), *_parts(self._scale(0, shape))]
        return with_classes(parts, (math.prod(shape),), self.options.classes)

    def _front(self, shape: Sequence[int]) -> list[Bijection]:
        """Return what is fitted to data: histograms of all entries, whitening of patches, splines of their entries."""
        options, side = self.options, self.options.whitening
        parts: list[Bijection] = []
        if options.levels:
            whole = Reshape(shape)
            parts += [whole, HistogramNormal(math.prod(shape), levels=options.levels), Inverse(whole)]
        if side == 0:
            return parts
        squeeze = Squeeze(side)
        inner = squeeze.output_shape(shape)
        reach = options.whitening_reach
        taper = PatchTaper(side, shape[0], reach) if reach else None
        parts += [squeeze, Whitening(inner[0], ridge=options.whitening_ridge, taper=taper)]
        if options.knots:
            parts.append(MonotoneSpline(inner[0], knots=options.knots))
        return [*parts, Inverse(squeeze)]

    def _scale(self, number: int, before: Sequence[int]) -> Composed:
        """Return scale ``number`` and all after it, for inputs of shape ``before``; the result is a vector."""
        blocks = self.options.blocks
        squeeze = Squeeze(self.options.first_squeeze if number == 0 else 2)
        shape = squeeze.output_shape(before)
        parts = [squeeze, *self._blocks(number, shape), self._scaling(shape[0])]
        if number == len(blocks) - 1:
            return Composed([*parts, Reshape(shape)])
        if not self.options.split:
            return Composed([*parts, *_parts(self._scale(number + 1, shape))])
        kept, width = (shape[0] + 1) // 2, self.options.prior_channels
        prior = AffinePrior(kept=kept, leaving=shape[0] - kept, hidden_channels=width) if width else None
        return Composed([*parts, Split(shape, self._scale(number + 1, (kept, *shape[1:])), kept=kept, prior=prior)])

    def _blocks(self, number: int, shape: Sequence[int]) -> list[Bijection]:
        options, parts = self.options, list[Bijection]()
        wanted = attention_blocks(options.attention_positions, options.blocks)
        for index in range(options.blocks[number]):
            parts.append(self._scaling(shape[0]))
            if options.channel_mixing:
                parts.append(Linear1x1(shape[0]))
            parts.append(self._convolution(shape, activate_first=index > 0))
            if options.attention != "none" and (number, index) in wanted:
                parts += [self._scaling(shape[0]), self._mixer(shape)]
        return parts

    def _scaling(self, channels: int) -> Bijection:
        knots = self.options.channel_knots
        return MonotoneSpline(channels, knots=knots) if knots else ActNorm(channels)

    def _convolution(self, shape: Sequence[int], *, activate_first: bool) -> Bijection:
        branch = CertifiedConvolution(
            channels=shape[0],
            hidden_channels=self.options.hidden_channels,
            kernel_sizes=self.options.kernel_sizes,
            activation=self.options.activation,
            activate_first=activate_first,
            padding=Padding("zero", grid=(shape[1], shape[2])),
            lipschitz=self.options.lipschitz,
            context_channels=self.options.context_channels or None,
        )
        return ResidualBijection(branch, solver=self.solver, log_det_estimator=self.log_det_estimator)

    def _mixer(self, shape: Sequence[int]) -> Bijection:
        options = self.options
        if options.attention == "convolution":
            return self._convolution(shape, activate_first=True)
        recipe = options.recipe
        if isinstance(recipe, Certified) and options.position_logits:
            recipe = replace(recipe, position_grid=tuple(shape[1:]), self_logit=options.self_logit)
        return invertible_attention(
            shape[0],
            kind=options.attention,
            recipe=recipe,
            lipschitz=options.lipschitz,
            num_heads=options.num_heads,
            solver=self.solver,
            log_det_estimator=self.log_det_estimator,
            context_channels=options.context_channels or None,
        )


def _parts(chain: Composed) -> list[Bijection]:
    return [cast(Bijection, part) for part in chain.bijections]
