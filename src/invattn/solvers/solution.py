"""What a solver returns: a value and, per sample, how good it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from invattn.norms import get_norm

_LEAST_ULPS = 8


@dataclass(frozen=True)
class Tolerance:
    """What a sample is asked for: residual <= atol + rtol |z|, never below 8 ulp of |z| (max_i |z_i|).

    Attributes:
        atol: Absolute tolerance; None is 1e-6 in float32 and 1e-12 in float64.
        rtol: Relative tolerance; None as above.
    """

    atol: float | None = None
    rtol: float | None = None

    def __call__(self, target: Tensor, *, norm: str = "inf,2") -> Tensor:
        """Return the tolerance of each sample of a target with shape (B, ...) in a norm, shape (B,)."""
        default = 1e-12 if target.dtype == torch.float64 else 1e-6
        atol = default if self.atol is None else self.atol
        rtol = default if self.rtol is None else self.rtol
        scale = get_norm(norm)(target)
        return torch.maximum(atol + rtol * scale, rounding_floor(scale))


def rounding_floor(scale: Tensor) -> Tensor:
    """Return 8 ulp of the largest number that a residual is made of: what rounding lets it reach. Shape as given."""
    exponent = torch.frexp(scale).exponent - 1
    return _LEAST_ULPS * torch.ldexp(torch.full_like(scale, torch.finfo(scale.dtype).eps), exponent)


class Status(IntEnum):
    """How a sample's iteration ended; STALLED: no point nearer the solution was found along Newton's direction."""

    CONVERGED = 0
    MAX_STEPS = 1
    DIVERGED = 2
    NON_FINITE = 3
    STALLED = 4


@dataclass(frozen=True)
class Solution:
    """The result of inverting a batch.

    Attributes:
        value: The inputs found, shape of the target.
        converged: Whether the residual is within the tolerance, shape (B,), bool.
        residual: |x + g(x) - z| at the returned x in the certificate's norm, shape (B,).
        num_steps: Updates of x, shape (B,), int: fixed-point steps, or Newton steps.
        error_bound: A proven bound of |value - exact inverse| in the certificate's norm, rounding included, shape
            (B,); None without a certificate.
        status: A :class:`Status` a sample, shape (B,), int.
        further_evaluations: Evaluations of g beyond ``num_steps + 1``, Jacobian-vector products among them, shape
            (B,), int; None is none.
    """

    value: Tensor
    converged: Tensor
    residual: Tensor
    num_steps: Tensor
    error_bound: Tensor | None
    status: Tensor
    further_evaluations: Tensor | None = None

    @property
    def evaluations(self) -> Tensor:
        """Evaluations of g a sample, shape (B,), int; a Jacobian-vector product counts as one."""
        least = self.num_steps + 1
        return least if self.further_evaluations is None else least + self.further_evaluations

    def with_value(self, value: Tensor) -> Solution:
        """Return the same report about a reshaped value."""
        return replace(self, value=value)

    def failures(self) -> str:
        """Count the samples that did not converge, by status, in words; empty where all did."""
        counts = {status: int((self.status == status).sum()) for status in Status if status != Status.CONVERGED}
        return ", ".join(f"{count} {status.name.lower()}" for status, count in counts.items() if count)
