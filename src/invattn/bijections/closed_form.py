"""Bijections whose inverse and log-determinant are formulas."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn._errors import CertificateError
from invattn.bijections.base import Bijection, LogDetReport, exact_report
from invattn.bijections.reshape import trivial_solution
from invattn.lipschitz import BiLipschitz
from invattn.norms import euclidean_norm
from invattn.solvers import Solution

_LEAST_ROUNDING = 16


class ClosedForm(Bijection):
    """A map with an exact inverse: nothing is iterated, and only rounding separates ``inverse(f(x))`` from x."""

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """Return log|det dz/dx| at x in nats, shape (B,)."""

    def solve(self, z: Tensor) -> Solution:
        """Apply the inverse; the report's bound is of its rounding, gamma u (upper / lower) (|x|_2 + |z|_2 / lower).

        gamma is 16, or the number of channels where that is larger. The bound holds in |.|_2 and in |.|_{inf,2}.
        """
        with torch.no_grad():
            x = self.inverse(z)
        solution = trivial_solution(x)
        shape = tuple(x.shape[1:])
        constants = self.bi_lipschitz(shape, norm="2")
        unit = torch.finfo(x.dtype).eps / 2
        gamma = max(_LEAST_ROUNDING, shape[0] if len(shape) == 3 else shape[-1])
        # Scales beyond the range of floating point have a lower constant of 0: nothing can be said of the rounding.
        stretch = 1 / constants.lower if constants.lower > 0 else math.inf
        sizes = euclidean_norm(x) + euclidean_norm(z.detach()) * stretch
        return replace(solution, error_bound=gamma * unit * constants.upper * stretch * sizes)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self.log_det(x)

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        return self(x), exact_report(self.log_det(x))

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.inverse(z)
        return x, -self.log_det(x)


class ChannelMap(ClosedForm):
    """A map that does the same to the channels of every token, pixel or vector.

    The channel axis is the second of images (B, C, H, W) and the last of tokens (B, N, C) and vectors (B, C). Such a
    map has the same constants in |.|_2 and in |.|_{inf,2}.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1; got {channels}.")
        self.channels = channels

    @abstractmethod
    def stretch(self) -> tuple[float, float]:
        """Return proven lower and upper constants of the map of one token."""

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Return the constants of the map of one token, which hold in both norms."""
        lower, upper = self.stretch()
        name = "inf,2" if norm is None else norm
        return BiLipschitz(lower, upper, name, name, (f"{type(self).__name__}: [{lower:.6g}, {upper:.6g}]",))

    def check_input(self, x: Tensor) -> None:
        """Raise unless x is floating point with the right number of channels."""
        if not x.is_floating_point():
            raise TypeError(f"inputs must be floating point; got {x.dtype}. Convert them first: x.float().")
        if x.dim() not in (2, 3, 4) or x.shape[channel_axis(x)] != self.channels:
            raise ValueError(
                f"inputs must be (B, C, H, W), (B, N, C) or (B, C) with C = {self.channels}; got {tuple(x.shape)}."
            )


def channel_axis(x: Tensor) -> int:
    """Return the axis of channels: 1 for images, the last one otherwise."""
    return 1 if x.dim() == 4 else -1


def beside(vector: Tensor, x: Tensor) -> Tensor:
    """Reshape one number a channel so that it broadcasts over x."""
    return vector[:, None, None] if x.dim() == 4 else vector


def positions(x: Tensor) -> int:
    """Return how many tokens or pixels a sample has."""
    return x[0].numel() // x.shape[channel_axis(x)]


class Logit(ClosedForm):
    """z = logit(margin + (1 - 2 margin) (x - low) / (high - low)), entry by entry.

    Args:
        low: The lower end of the data.
        high: The upper end.
        margin: How far data are kept from the ends of (0, 1), in [0, 0.5); 0.05 for images is usual.

    Raises:
        ValueError: If the interval is empty or the margin out of range.

    References:
        Dinh et al. 2017 (Real NVP), Sec. 4.1.
    """

    def __init__(self, *, low: float = 0.0, high: float = 1.0, margin: float = 0.05) -> None:
        super().__init__()
        if not low < high or not 0 <= margin < 0.5:
            raise ValueError(f"low < high and 0 <= margin < 0.5 are needed; got {low}, {high}, {margin}.")
        self.low, self.high, self.margin = low, high, margin

    @property
    def certified(self) -> bool:
        return True

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Raise: the slope of the logit has no upper bound at the ends of the interval.

        Raises:
            CertificateError: Always.
        """
        raise CertificateError("the logit stretches without bound at the ends of its interval.")

    def solve(self, z: Tensor) -> Solution:
        """Apply the inverse; no error bound, as rounding near the ends is not bounded here."""
        with torch.no_grad():
            return replace(trivial_solution(self.inverse(z)), error_bound=None)

    def forward(self, x: Tensor) -> Tensor:
        inner = self._inner(x)
        return inner.log() - (-inner).log1p()

    def inverse(self, z: Tensor) -> Tensor:
        return (z.sigmoid() - self.margin) / (1 - 2 * self.margin) * (self.high - self.low) + self.low

    def log_det(self, x: Tensor) -> Tensor:
        z = self(x)
        slope = torch.log(torch.tensor((1 - 2 * self.margin) / (self.high - self.low), dtype=x.dtype, device=x.device))
        return (slope + F.softplus(-z) + F.softplus(z)).flatten(1).sum(dim=1)

    def _inner(self, x: Tensor) -> Tensor:
        return self.margin + (1 - 2 * self.margin) * (x - self.low) / (self.high - self.low)
