"""Bijections that only move entries."""

from __future__ import annotations

from torch import Tensor

from invattn.bijections.base import Bijection
from invattn.bijections.log_det_report import LogDetReport, exact_report
from invattn.bijections.trivial import trivial_solution
from invattn.solvers import Solution


class Rearrangement(Bijection):
    """A permutation of the entries of a sample: its log-determinant is 0 and its inverse exact."""

    def solve(self, z: Tensor) -> Solution:
        return trivial_solution(self.inverse(z))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), x.new_zeros(x.shape[0])

    def forward_and_log_det_report(self, x: Tensor) -> tuple[Tensor, LogDetReport]:
        return self(x), exact_report(x.new_zeros(x.shape[0]))

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(z), z.new_zeros(z.shape[0])
