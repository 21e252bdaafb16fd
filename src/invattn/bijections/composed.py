"""A chain of bijections."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from invattn.bijections.base import Bijection
from invattn.bijections.trivial import trivial_solution
from invattn.solvers import Solution, Status


class Composed(Bijection):
    """f = f_K o ... o f_1.

    Args:
        bijections: f_1, ..., f_K, the first one applied first.
    """

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        self.bijections = nn.ModuleList(bijections)

    def _parts(self) -> list[Bijection]:
        return [cast(Bijection, part) for part in self.bijections]

    @property
    def certified(self) -> bool:
        return all(part.certified for part in self._parts())

    @property
    def inverse_lipschitz(self) -> float | None:
        constants = [part.inverse_lipschitz for part in self._parts()]
        known = [constant for constant in constants if constant is not None]
        return reduce(lambda a, b: a * b, known, 1.0) if len(known) == len(constants) else None

    def forward(self, x: Tensor) -> Tensor:
        for part in self._parts():
            x = part(x)
        return x

    def inverse(self, z: Tensor) -> Tensor:
        for part in reversed(self._parts()):
            z = part.inverse(z)
        return z

    def solve(self, z: Tensor) -> Solution:
        """Invert part by part.

        The residual is the largest of the parts', the steps are summed, and a sample's status is that of the first
        part (in the order of the inverse) in which it failed. The error bound carries each part's through the rest:
        e <- e_part + Lip(f_part^{-1}) e.
        """
        merged = trivial_solution(z)
        for part in reversed(self._parts()):
            merged = _merge(merged, part.solve(merged.value), part.inverse_lipschitz)
        return merged

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for part in self._parts():
            x, log_det = part.forward_and_log_det(x)
            total = total + log_det
        return x, total

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for part in reversed(self._parts()):
            z, log_det = part.inverse_and_log_det(z)
            total = total + log_det
        return z, total


def _merge(before: Solution, after: Solution, constant: float | None) -> Solution:
    bound = None
    if before.error_bound is not None and after.error_bound is not None and constant is not None:
        bound = after.error_bound + constant * before.error_bound
    return Solution(
        value=after.value,
        converged=before.converged & after.converged,
        residual=torch.maximum(before.residual, after.residual),
        num_steps=before.num_steps + after.num_steps,
        error_bound=bound,
        status=torch.where(before.status != int(Status.CONVERGED), before.status, after.status),
    )
