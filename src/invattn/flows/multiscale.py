"""The flow over images: residual convolutions at several scales, with attention where it is wanted."""

from __future__ import annotations

from collections.abc import Sequence

from invattn.flows.flow import Flow, StandardNormal
from invattn.flows.image_architecture import ImageArchitecture, Positions
from invattn.logdet import LogDetEstimator
from invattn.recipes import Recipe, make_recipe
from invattn.solvers import Solver


class MultiscaleIResNet(Flow):
    """An i-ResNet over images, with attention blocks between its convolutional blocks.

    First what is fitted to data, if asked for: histograms, whitening, splines. Then at each scale: Squeeze, its
    blocks, and a Split that sends half of the channels to the base and the others on. A block is ActNorm (and an
    invertible 1 x 1 convolution, if asked for) and x + g(x) with a certified convolution g; an attention block is
    ActNorm and :func:`invattn.invertible_attention`. ActNorm and all that is fitted start from data by
    :func:`invattn.bijections.initialize`. The base is a standard normal.

    Args:
        image_shape: (C, H, W) of one image.
        blocks: Convolutional blocks at each scale.
        hidden_channels: Of each convolutional branch.
        attention: A kind of :data:`invattn.KINDS`, ``convolution`` (one more block there), or ``none``.
        attention_positions: (scale, after which of its blocks) for each attention block, counted from 0, -1 the last;
            or ``interleaved:k``: after every k-th block of every scale.
        recipe: Form of the attention: a name or an object.
        lipschitz: c of every residual block.
        kernel_sizes: Of each convolutional branch, in pixels.
        activation: Of each convolutional branch, see :data:`invattn.lipschitz.ACTIVATIONS`.
        levels: Grey levels of the data in [-0.5, 0.5), if they are few: each entry is then first made normal by its
            histogram; 0: it is not.
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
        classes: Classes of the samples, each with a Gaussian prior of its own: ``flow.given(labels=y)``; 0: one prior.
        context_channels: K of the context of each sample that all residual blocks depend on:
            ``flow.given(context)``; 0: none.
        solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
        log_det_estimator: Of all residual blocks; None is the library's default.

    Raises:
        ValueError: If a name is unknown, a position does not exist, or the image does not fit the scales.

    References:
        Zha et al. 2021, Sec. 4.2; Behrmann et al. 2019, Sec. 5.

    Example:
        >>> import torch
        >>> from invattn.flows import MultiscaleIResNet
        >>> flow = MultiscaleIResNet((3, 8, 8), (2, 2), 16, attention="dot_product", attention_positions=[(0, -1)])
        >>> flow.log_prob(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        blocks: Sequence[int],
        hidden_channels: int = 64,
        attention: str = "none",
        attention_positions: Positions = ((0, -1),),
        recipe: str | Recipe = "certified",
        *,
        lipschitz: float = 0.97,
        kernel_sizes: Sequence[int] = (3, 1, 3),
        activation: str = "lipswish",
        levels: int = 0,
        whitening: int = 0,
        whitening_ridge: float = 1e-5,
        whitening_reach: float = 0.0,
        knots: int = 0,
        channel_knots: int = 0,
        first_squeeze: int = 2,
        split: bool = True,
        prior_channels: int = 32,
        channel_mixing: bool = False,
        position_logits: bool = True,
        self_logit: float = 0.0,
        num_heads: int = 1,
        classes: int = 0,
        context_channels: int = 0,
        solver: Solver | None = None,
        log_det_estimator: LogDetEstimator | None = None,
    ) -> None:
        architecture = ImageArchitecture(
            image_shape=_three(image_shape),
            blocks=tuple(blocks),
            hidden_channels=hidden_channels,
            attention=attention,
            attention_positions=attention_positions,
            recipe=make_recipe(recipe),
            lipschitz=lipschitz,
            kernel_sizes=tuple(kernel_sizes),
            activation=activation,
            levels=levels,
            whitening=whitening,
            whitening_ridge=whitening_ridge,
            whitening_reach=whitening_reach,
            knots=knots,
            channel_knots=channel_knots,
            first_squeeze=first_squeeze,
            split=split,
            prior_channels=prior_channels,
            channel_mixing=channel_mixing,
            position_logits=position_logits,
            self_logit=self_logit,
            num_heads=num_heads,
            classes=classes,
            context_channels=context_channels,
        )
        chain = architecture.bijection(solver=solver, log_det_estimator=log_det_estimator)
        super().__init__(chain, StandardNormal(chain.output_shape(architecture.image_shape)))
        self.architecture = architecture


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"image_shape must be (C, H, W); got {tuple(shape)}.")
    return shape[0], shape[1], shape[2]
