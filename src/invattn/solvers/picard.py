"""Algorithm 1 of the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from invattn.solvers.driver import IterativeSolver, SolveState, Stepper, iterate


@dataclass(frozen=True)
class Picard(IterativeSolver):
    """x <- z - g(x), the fixed-point iteration.

    Attributes:
        max_steps: N of Algorithm 1.
        early_stop: Stop each sample at its tolerance; False makes exactly N steps, as the paper does.
        atol: Absolute tolerance; None is 1e-6 in float32, 1e-12 in float64.
        rtol: Relative tolerance; None as above.

    References:
        Zha et al. 2021, Algorithm 1; Behrmann et al. 2019.
    """

    max_steps: int = 100
    early_stop: bool = True

    def _iterate(self, branch: Callable[[Tensor], Tensor], state: SolveState) -> None:
        iterate(branch, state, PlainStepper(), max_steps=self.max_steps, early_stop=self.early_stop)


class PlainStepper(Stepper):
    """x <- x + r = z - g(x)."""

    def propose(self, point: Tensor, defect: Tensor, size: Tensor, tolerance: Tensor) -> Tensor:
        return point + defect

    def keep(self, rows: Tensor) -> None:
        return None
