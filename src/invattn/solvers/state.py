"""Points and reports of a solve in progress, for every kind of solver."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.norms import get_norm
from invattn.solvers.solution import Solution, Status

_BLOW_UP = 1e6  # a defect this many times the first one has diverged

ROUNDING_CONSTANT = 16
"""gamma of the error bound: what rounding may add to a residual, in units of u (|x| + |g(x)| + |z|).

Measured, not proven: up to 4.1 were seen for 256 channels and 512 tokens; four times the channels double it.
"""


class SolveState:
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
        self._further = torch.zeros_like(self._steps)
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

    def count_further(self, evaluations: Tensor) -> None:
        """Add evaluations of g of the active rows, shape (A,), to the one that each point and each update has."""
        self._further[self.active] += evaluations

    def stall(self, rows: Tensor) -> None:
        """Take note that these of the active rows found no better point."""
        self._status[self.active[rows]] = int(Status.STALLED)

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
            further_evaluations=self._further,
        )
