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
from invattn.lipschitz import BiLipschitz
from invattn.norms import euclidean_norm
from invattn.solvers import Solution, Status

_LEAST_ROUNDING = 16


def trivial_solution(value: Tensor) -> Solution:
    """Report an exact inverse: residual 0, no step, no evaluation, status converged wherever the value is finite."""
    batch = value.shape[0]
    finite = value.detach().isfinite().flatten(1).all(dim=1)
    zero = value.new_zeros(batch)
    status = torch.where(finite, int(Status.CONVERGED), int(Status.NON_FINITE))
    return Solution(
        value=value.detach(),
        converged=finite,
        residual=torch.where(finite, zero, torch.nan),
        num_steps=torch.zeros(batch, dtype=torch.long, device=value.device),
        error_bound=zero.clone(),
        status=status,
        further_evaluations=torch.full((batch,), -1, dtype=torch.long, device=value.device),
    )


class ClosedForm(Bijection):
    """A map with an exact inverse: nothing is iterated, and only rounding separates ``inverse(f(x))`` from x.

    Implement ``forward``, ``inverse`` and ``log_det``; :class:`invattn.bijections.Bijection` shows how.
    """

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """Return log|det dz/dx| at x in nats, shape (B,)."""

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        """Apply the inverse; the report's bound is that of :meth:`rounding_bound`."""
        with torch.no_grad():
            x = self.inverse(z)
        return replace(trivial_solution(x), error_bound=self.rounding_bound(x, z.detach()))

    def rounding_bound(self, x: Tensor, z: Tensor) -> Tensor | None:
        """Return a bound of the rounding of x = inverse(z), shape (B,), or None where there is no certificate.

        It is gamma u (upper / lower) (|x|_2 + |z|_2 / lower), with the constants of ``bi_lipschitz`` and gamma = 16,
        or the number of channels where that is larger. The bound holds in |.|_2 and in |.|_{inf,2}.
        """
        shape = tuple(x.shape[1:])
        try:
            constants = self.bi_lipschitz(shape, norm="2")
        except CertificateError:
            return None
        unit = torch.finfo(x.dtype).eps / 2
        gamma = max(_LEAST_ROUNDING, shape[0] if len(shape) == 3 else shape[-1])
        # Scales beyond the range of floating point have a lower constant of 0: nothing can be said of the rounding.
        stretch = 1 / constants.lower if constants.lower > 0 else math.inf
        return gamma * unit * constants.upper * stretch * (euclidean_norm(x) + euclidean_norm(z) * stretch)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self.log_det(x)

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        z, log_det = self.forward_and_log_det(x)
        return z, exact_report(log_det)

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

    def _rows(self, x: Tensor) -> Tensor:
        """Check an input and return it with shape (C, everything else)."""
        self.check_input(x)
        return x.movedim(channel_axis(x), 0).reshape(self.channels, -1).contiguous()

    def _like(self, rows: Tensor, x: Tensor) -> Tensor:
        """Undo ``_rows``, in the dtype of x."""
        axis = channel_axis(x)
        return rows.reshape(x.movedim(axis, 0).shape).movedim(0, axis).to(x.dtype)


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

    certified = True  # of the interval onto the line

    def __init__(self, *, low: float = 0.0, high: float = 1.0, margin: float = 0.05) -> None:
        super().__init__()
        if not low < high or not 0 <= margin < 0.5:
            raise ValueError(f"low < high and 0 <= margin < 0.5 are needed; got {low}, {high}, {margin}.")
        self.low, self.high, self.margin = low, high, margin

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        """Raise: the slope of the logit has no upper bound at the ends of the interval.

        Raises:
            CertificateError: Always.
        """
        raise CertificateError("the logit stretches without bound at the ends of its interval.")

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
