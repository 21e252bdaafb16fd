"""Anderson mixing from the second step on."""

from __future__ import annotations

from dataclasses import dataclass

from invattn.solvers.base import FixedPointSolver
from invattn.solvers.driver import Plan
from invattn.solvers.solution import Tolerance
from invattn.solvers.steppers import AndersonStepper


@dataclass(frozen=True)
class Anderson(FixedPointSolver):
    """Anderson mixing, safeguarded by the plain step.

    Attributes:
        max_steps: The largest number of updates.
        depth: How many differences are mixed; 2 to 8 is usual.
        atol: Absolute tolerance; None is 1e-6 in float32, 1e-12 in float64.
        rtol: Relative tolerance; None as above.

    References:
        Walker and Ni 2011.
    """

    max_steps: int = 200
    depth: int = 5
    atol: float | None = None
    rtol: float | None = None

    def __post_init__(self) -> None:
        _check(self.max_steps, self.depth)

    def plan(self) -> Plan:
        return Plan(
            AndersonStepper(depth=self.depth, patience=None),
            max_steps=self.max_steps,
            tolerance=Tolerance(self.atol, self.rtol),
        )


@dataclass(frozen=True)
class Adaptive(FixedPointSolver):
    """Plain steps where they are quick, Anderson mixing where they are slow: the default.

    Two plain steps; from then on a sample is mixed as soon as its observed ratio of residuals predicts more than
    ``patience`` further plain steps. The plain step from the best point stays each sample's safeguard.

    Attributes:
        max_steps: The largest number of updates; 219 plain steps reach 1e-9 at L = 0.9.
        depth: How many differences are mixed.
        patience: How many further plain steps are thought cheaper than mixing.
        refine: Further steps once a sample is within tolerance; each costs one evaluation and divides the error by
            the observed ratio, about 3 to 10.
        atol: Absolute tolerance; None is 1e-6 in float32, 1e-12 in float64.
        rtol: Relative tolerance; None as above.
    """

    max_steps: int = 500
    depth: int = 5
    patience: int = 4
    refine: int = 0
    atol: float | None = None
    rtol: float | None = None

    def __post_init__(self) -> None:
        _check(self.max_steps, self.depth)
        if self.patience < 0 or self.refine < 0:
            raise ValueError(f"patience and refine must not be negative; got {self.patience} and {self.refine}.")

    def plan(self) -> Plan:
        return Plan(
            AndersonStepper(depth=self.depth, patience=self.patience),
            max_steps=self.max_steps,
            refine=self.refine,
            tolerance=Tolerance(self.atol, self.rtol),
        )


def _check(max_steps: int, depth: int) -> None:
    if max_steps < 0:
        raise ValueError(f"max_steps must not be negative; got {max_steps}.")
    if depth < 1:
        raise ValueError(f"depth must be at least 1; got {depth}.")
