"""Affine maps, one a channel or one a class, and layers that start from data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invattn._conditions import Condition, Conditional
from invattn.bijections.closed_form import ChannelMap, ClosedForm, beside, channel_axis, positions
from invattn.lipschitz import BiLipschitz


class DataDependent(ABC):
    """A layer whose parameters are first set from its inputs."""

    fitted: Tensor
    """Boolean, 0-dimensional; a buffer, so that it is kept in the state_dict."""

    @property
    def is_fitted(self) -> bool:
        """Whether it has been set."""
        return bool(self.fitted)

    @abstractmethod
    def fit(self, x: Tensor) -> None:
        """Set the parameters from inputs with shape (B, ...)."""


@torch.no_grad()
def initialize(module: nn.Module, x: Tensor) -> int:
    """Start every layer of a map that starts from data, in the order in which data reach it.

    Layers that were started before (or loaded so) are left alone. Call it once before training, and before a module
    is wrapped for several processes: each process would otherwise start from its own batch.

    Args:
        module: A bijection, or anything that holds some and is called with x.
        x: A first batch with shape (B, ...); several hundred samples are better than a few.

    Returns:
        How many layers were started.

    Example:
        >>> import torch
        >>> from invattn.bijections import ActNorm, initialize
        >>> initialize(ActNorm(3), torch.randn(64, 3))
        1
    """
    started: list[DataDependent] = []

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, DataDependent)
        if not layer.is_fitted:
            layer.fit(inputs[0])
            started.append(layer)

    handles = [part.register_forward_pre_hook(before) for part in module.modules() if isinstance(part, DataDependent)]
    try:
        module(x)
    finally:
        for handle in handles:
            handle.remove()
    return len(started)


class ActNorm(ChannelMap, DataDependent):
    """z = (x - shift) exp(log_scale), one shift and scale a channel.

    Before :func:`invattn.bijections.initialize` has seen data it is the identity; whether it has is part of the
    state_dict, so that a loaded layer is never started anew.

    Args:
        channels: C.

    References:
        Kingma and Dhariwal 2018 (Glow), Sec. 3.1.
    """

    certified = True  # the scale is positive
    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialised", torch.tensor(False))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Start from data: the outputs at x then have mean 0 and standard deviation 1 in every channel.

        Args:
            x: Inputs, at least two values a channel. A channel without spread keeps the scale 1.

        Raises:
            ValueError: If x is not finite or has another shape.
        """
        self.check_input(x)
        rows = x.movedim(channel_axis(x), -1).reshape(-1, self.channels).double()
        if len(rows) < 2 or not bool(rows.isfinite().all()):
            raise ValueError("ActNorm starts from at least two finite values a channel. Check the first batch.")
        spread = rows.std(dim=0, correction=0)
        self.shift.copy_(rows.mean(dim=0))
        self.log_scale.copy_(-torch.where(spread > 0, spread, 1).log())
        self.initialised.fill_(True)

    @property
    def is_fitted(self) -> bool:
        return bool(self.initialised)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return (x - beside(self.shift, x)) * beside(self.log_scale.exp(), x)

    def inverse(self, z: Tensor) -> Tensor:
        self.check_input(z)
        return z * beside((-self.log_scale).exp(), z) + beside(self.shift, z)

    def log_det(self, x: Tensor) -> Tensor:
        return (positions(x) * self.log_scale.sum()).to(x.dtype).expand(x.shape[0])

    def stretch(self) -> tuple[float, float]:
        scales = self.log_scale.detach().double().exp()
        return float(scales.min()), float(scales.max())


class Labels(Conditional):
    """The class of each sample.

    Args:
        classes: How many classes there are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1; got {classes}.")
        self.classes = classes

    @property
    def need(self) -> str:
        return f"labels of {self.classes} classes"

    def take(self, condition: Condition) -> Tensor | None:
        labels = condition.labels
        if labels is None:
            return None
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.dim() != 1:
            raise ValueError(
                f"labels must be integers with shape (B,); got {labels.dtype} with shape {tuple(labels.shape)}."
            )
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ValueError(
                f"labels must lie between 0 and {self.classes - 1}; got {int(labels.min())} to {int(labels.max())}."
            )
        return labels.long()

    def extra_repr(self) -> str:
        return f"classes={self.classes}"


class ClassAffine(ClosedForm):
    """z = (x - mean_y) exp(-log_scale_y) for a sample of class y, entry by entry; it starts as the identity.

    With a standard normal base, the distribution of x given y is a Gaussian with a learned mean and scale. Labels are
    bound by ``given(labels=...)``.

    Args:
        shape: Of one sample, without the batch.
        classes: How many classes there are, numbered from 0.

    References:
        Kingma and Dhariwal 2018 (Glow), their class-conditional prior.
    """

    certified = True  # the scale is positive

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.labels = Labels(classes)
        self.mean = nn.Parameter(torch.zeros(classes, *self.shape))
        self.log_scale = nn.Parameter(torch.zeros(classes, *self.shape))

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.labels.classes

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Return the constants of the classes that stretch least and most, which hold in every norm."""
        log_scale = self.log_scale.detach().double()
        lower, upper = math.exp(-float(log_scale.max())), math.exp(-float(log_scale.min()))
        name = "inf,2" if norm is None else norm
        return BiLipschitz(lower, upper, name, name, (f"affine map of a class: [{lower:.6g}, {upper:.6g}]",))

    def forward(self, x: Tensor) -> Tensor:
        labels = self._labels(x)
        return (x - self.mean[labels]) * (-self.log_scale[labels]).exp()

    def inverse(self, z: Tensor) -> Tensor:
        labels = self._labels(z)
        return z * self.log_scale[labels].exp() + self.mean[labels]

    def log_det(self, x: Tensor) -> Tensor:
        return -self.log_scale[self._labels(x)].flatten(1).sum(dim=1)

    def _labels(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"samples must have shape {self.shape}; got {tuple(x.shape[1:])}.")
        return self.labels.values_of(x.shape[0])

    def extra_repr(self) -> str:
        return f"shape={self.shape}"
