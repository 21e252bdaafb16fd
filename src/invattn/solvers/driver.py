"""The one loop that every fixed-point solver runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn._conditions import rows_of
from invattn.solvers.solution import Solution, Tolerance
from invattn.solvers.state import SolveState
from invattn.solvers.steppers import Stepper


@dataclass(frozen=True)
class Plan:
    """How one solve proceeds.

    Attributes:
        stepper: The update rule, with its history.
        max_steps: The largest number of updates.
        tolerance: When a sample has converged.
        early_stop: Stop each sample at its tolerance, and return the best point seen where it is never reached; else
            make exactly ``max_steps`` updates (unless a sample leaves the finite numbers) and return the last point.
        refine: Further updates of each sample once it is within tolerance.
    """

    stepper: Stepper
    max_steps: int
    tolerance: Tolerance
    early_stop: bool = True
    refine: int = 0


@torch.no_grad()
def iterate(
    branch: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    plan: Plan,
    start: Tensor | None = None,
    lipschitz: float | None = None,
    norm: str = "inf,2",
) -> Solution:
    """Solve x + g(x) = z for every sample; finished samples are not evaluated again.

    Args:
        branch: g, a function of any subset of the samples.
        target: z with shape (B, ...), floating point.
        plan: The rule, the limits and the tolerance.
        start: Where to start, shape of z; None starts at z (Algorithm 1).
        lipschitz: A proven bound L < 1 of Lip(g), for ``error_bound``; None: no bound.
        norm: The norm of residuals, tolerances and L.

    Returns:
        A solution; ``error_bound`` is (residual + gamma u (|x| + |z - x| + residual + |z|)) / (1 - L).

    References:
        Zha et al. 2021, Algorithm 1; docs/theory.md, "Consequences".
    """
    tolerance = plan.tolerance(target, norm=norm)
    target = target.contiguous()  # a token's channels lie side by side: products and norms are quicker
    begin = target if start is None else start.contiguous()
    state = SolveState(target, begin, tolerance, refine=plan.refine, norm=norm)
    for step in range(plan.max_steps + 1):
        if state.active.numel() == 0:
            break
        image = branch(state.point).to(target.dtype)  # autocast may have returned a lower precision
        defect = state.target - state.point - image
        size = state.norm(defect)
        ended = state.record(size, step=step, early_stop=plan.early_stop)
        if step == plan.max_steps:
            break
        if bool(ended.any()):
            rows = ~ended
            state.keep(rows)
            plan.stepper.keep(rows)
            branch = rows_of(branch, rows)
            defect, size = defect[rows], size[rows]
            if state.active.numel() == 0:
                break
        following = plan.stepper.propose(state.point.flatten(1), defect.flatten(1), size, state.tolerance)
        state.point = following.view_as(state.point)
    return state.solution(lipschitz)
