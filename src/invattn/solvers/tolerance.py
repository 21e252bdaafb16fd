"""When a sample has converged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.norms import get_norm

_LEAST_ULPS = 8


@dataclass(frozen=True)
class Tolerance:
    """When a sample has converged: residual <= atol + rtol |z|, never below 8 ulp of |z| (max_i |z_i|).

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
        return torch.maximum(atol + rtol * scale, _LEAST_ULPS * _ulp(scale))


def _ulp(size: Tensor) -> Tensor:
    """The spacing of floating-point numbers at a positive size."""
    exponent = torch.frexp(size).exponent - 1
    return torch.ldexp(torch.full_like(size, torch.finfo(size.dtype).eps), exponent)
