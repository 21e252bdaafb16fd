"""From a bounded interval to all real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn._errors import CertificateError
from invattn.bijections.closed_form import ClosedForm
from invattn.bijections.trivial import trivial_solution
from invattn.lipschitz import BiLipschitz
from invattn.solvers import Solution


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
