"""Algorithm 1 of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from invattn.solvers.base import FixedPointSolver
from invattn.solvers.driver import Plan
from invattn.solvers.solution import Tolerance
from invattn.solvers.steppers import PlainStepper


@dataclass(frozen=True)
class Picard(FixedPointSolver):
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
    atol: float | None = None
    rtol: float | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative; got {self.max_steps}.")

    def plan(self) -> Plan:
        return Plan(
            PlainStepper(),
            max_steps=self.max_steps,
            early_stop=self.early_stop,
            tolerance=Tolerance(self.atol, self.rtol),
        )
