"""A bijection used backwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from invattn.bijections.base import Bijection
from invattn.bijections.log_det_report import LogDetReport
from invattn.bijections.trivial import trivial_solution
from invattn.lipschitz import BiLipschitz, isometry
from invattn.norms import count_tokens
from invattn.solvers import Solution


class Inverse(Bijection):
    """f^{-1} as a map: forward solves, inverse evaluates.

    Args:
        bijection: f.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    @property
    def certified(self) -> bool:
        return self.bijection.certified

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        constants = self.bijection.bi_lipschitz(self.bijection.input_shape(shape)).inverse()
        return isometry(norm or constants.norm_in).then(constants, tokens=count_tokens(shape))

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.input_shape(shape)

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.output_shape(shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.bijection.inverse(x)

    def inverse(self, z: Tensor) -> Tensor:
        return self.bijection(z)

    def solve(self, z: Tensor) -> Solution:
        """Evaluate f: no step, residual 0; no error bound, as the rounding of an evaluation is not bounded here."""
        return replace(trivial_solution(self.bijection(z)), error_bound=None)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse_and_log_det(x)

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection.forward_and_log_det(z)

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        """Return f^{-1}(x) and the report of f there, with the other sign."""
        z = self.bijection.inverse(x)
        _, report = self.bijection.forward_and_log_det_report(z)
        return z, replace(report, value=-report.value)
