"""An affine map of each class: with a standard normal base, a Gaussian prior of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invattn._conditions import Condition, Conditional
from invattn.bijections.closed_form import ClosedForm
from invattn.lipschitz import BiLipschitz


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
