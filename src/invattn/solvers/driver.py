"""The one loop that every fixed-point solver runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.norms import get_norm
from invattn.solvers.solution import Solution, Status
from invattn.solvers.steppers import Stepper

_LEAST_ULPS = 8
_BLOW_UP = 1e6  # a defect this many times the first one has diverged

ROUNDING_CONSTANT = 16
"""gamma of the error bound: what rounding may add to a residual, in units of u (|x| + |g(x)| + |z|)."""


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
        A solution; ``error_bound`` is (residual + gamma u (|x| + |g(x)| + |z|)) / (1 - L).

    References:
        Zha et al. 2021, Algorithm 1; docs/theory.md, "Consequences".
    """
    tolerance = plan.tolerance(target, norm=norm)
    state = _State(target, target if start is None else start, tolerance, refine=plan.refine, norm=norm)
    for step in range(plan.max_steps + 1):
        if state.active.numel() == 0:
            break
        image = branch(state.point).to(target.dtype)  # autocast may have returned a lower precision
        defect = state.target - state.point - image
        size = state.norm(defect)
        ended = state.record(size, image, step=step, early_stop=plan.early_stop)
        if step == plan.max_steps:
            break
        if bool(ended.any()):
            rows = ~ended
            state.keep(rows)
            plan.stepper.keep(rows)
            defect, size = defect[rows], size[rows]
            if state.active.numel() == 0:
                break
        following = plan.stepper.propose(state.point.flatten(1), defect.flatten(1), size, state.tolerance)
        state.point = following.view_as(state.point)
    return state.solution(lipschitz)


class _State:
    """Points and reports of a solve: full-length results and the still active rows."""

    def __init__(self, target: Tensor, start: Tensor, tolerance: Tensor, *, refine: int, norm: str) -> None:
        self.norm = get_norm(norm)
        batch = target.shape[0]
        self.active = torch.arange(batch, device=target.device)
        self.target, self.point, self.tolerance = target, start, tolerance
        self._all_targets, self._limits = target, tolerance
        self._left = torch.full((batch,), refine, dtype=torch.long, device=target.device)
        self._value = start.clone()
        self._first = torch.full((batch,), torch.inf, dtype=target.dtype, device=target.device)
        self._residual = self._first.clone()
        self._image_norm = torch.zeros_like(self._residual)
        self._steps = torch.zeros(batch, dtype=torch.long, device=target.device)
        self._status = torch.full((batch,), int(Status.MAX_STEPS), dtype=torch.long, device=target.device)

    def record(self, size: Tensor, image: Tensor, *, step: int, early_stop: bool) -> Tensor:
        """Take note of the defects of the active rows; return which of them have ended."""
        rows = self.active
        if step == 0:
            self._first[rows] = size
        finite = size.isfinite()
        better = finite & (size < self._residual[rows]) if early_stop else torch.ones_like(finite)
        better |= ~self._residual[rows].isfinite()
        chosen = rows[better]
        self._value[chosen] = self.point[better]
        self._residual[chosen] = size[better]
        self._image_norm[chosen] = self.norm(image[better])
        self._steps[rows] = step
        blown = size > _BLOW_UP * (self._first[rows] + self.tolerance)
        self._status[rows[~finite]] = int(Status.NON_FINITE)
        if not early_stop:
            return ~finite
        self._status[rows[blown]] = int(Status.DIVERGED)
        reached = self._residual[rows] <= self.tolerance
        done = reached & (self._left[rows] <= 0)
        self._left[rows[reached]] -= 1
        return ~finite | blown | done

    def keep(self, rows: Tensor) -> None:
        """Drop the ended rows."""
        self.active, self.point = self.active[rows], self.point[rows]
        self.target, self.tolerance = self.target[rows], self.tolerance[rows]

    def solution(self, lipschitz: float | None) -> Solution:
        """Assemble the result."""
        residual = self._residual
        non_finite = self._status == Status.NON_FINITE
        converged = (residual <= self._limits) & ~non_finite
        self._status[converged] = int(Status.CONVERGED)
        worse = ~converged & ~non_finite & ~(residual <= self._first)
        self._status[worse] = int(Status.DIVERGED)
        bound = None
        if lipschitz is not None:
            unit = torch.finfo(residual.dtype).eps / 2
            sizes = self.norm(self._value) + self._image_norm + self.norm(self._all_targets)
            bound = (residual + ROUNDING_CONSTANT * unit * sizes) / (1 - lipschitz)
        return Solution(
            value=self._value,
            converged=converged,
            residual=residual,
            num_steps=self._steps,
            error_bound=bound,
            status=self._status,
        )
