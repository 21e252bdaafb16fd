"""Points and reports of a solve in progress, for every kind of solver."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.norms import get_norm
from invattn.solvers.solution import Solution, Status, rounding_floor

_BLOW_UP = 1e6  # a defect this many times the first one has diverged

ROUNDING_CONSTANT = 16
"""gamma of the error bound: what rounding may add to a residual, in units of u (|x| + |g(x)| + |z|).

Measured, not proven: up to 4.1 were seen for 256 channels and 512 tokens; four times the channels double it.
"""


class SolveState:
    """The points of the active rows, and the reports of all; a row is written to its report when it ends.

    Attributes:
        active: Which samples are active, shape (A,).
        point: Their points; never changed in place.
        target: z of the active rows.
        tolerance: What the norm of their defects is asked to reach, shape (A,). A defect is a sum of z, x and g(x):
            where x or g(x) is the larger, rounding may leave more of it than this. A sample that has come down to
            the rounding of all three ends where its defect falls no further, and has converged.
    """

    def __init__(self, target: Tensor, start: Tensor, tolerance: Tensor, *, refine: int, norm: str) -> None:
        self.norm = get_norm(norm)
        batch = target.shape[0]
        self.active = torch.arange(batch, device=target.device)
        self.target, self.point, self.tolerance = target, start, tolerance
        self._all_targets, self._limits = target, tolerance
        self._best = start
        self._least = torch.full((batch,), torch.inf, dtype=target.dtype, device=target.device)
        self._first: Tensor | None = None
        self._left = torch.full((batch,), refine, dtype=torch.long, device=target.device)
        self._reached = torch.full((batch,), int(Status.MAX_STEPS), dtype=torch.long, device=target.device)
        self._value = torch.empty_like(start)
        self._residual, self._first_residual = torch.empty_like(self._least), torch.empty_like(self._least)
        self._status = self._reached.clone()
        self._steps, self._further = torch.zeros_like(self._status), torch.zeros_like(self._status)
        self._step = 0

    def record(self, size: Tensor, *, step: int, early_stop: bool) -> Tensor:
        """Take note of the defects of the active rows, shape (A,); return which of them have ended."""
        self._step = step
        if self._first is None:
            self._first = size
        finite = size.isfinite()
        better = ~self._least.isfinite()
        better |= finite & (size < self._least) if early_stop else True
        if bool(better.all()):
            self._best, self._least = self.point, size
        else:
            self._best = torch.where(better.reshape(-1, *(1 for _ in self.point.shape[1:])), self.point, self._best)
            self._least = torch.where(better, size, self._least)
        self._reached = torch.where(finite, self._reached, int(Status.NON_FINITE))
        if not early_stop:
            return ~finite
        blown = size > _BLOW_UP * (self._first + self.tolerance)
        self._reached = torch.where(blown, int(Status.DIVERGED), self._reached)
        reached = self._least <= self.tolerance
        done = reached & (self._left <= 0)
        self._left = self._left - reached.long()
        if not bool(better.all()):
            done |= ~better & (self._least <= self._floor(self.target, self._best))
        return ~finite | blown | done

    def keep(self, rows: Tensor) -> None:
        """Drop the ended rows: all but these of the active ones, shape (A,), bool."""
        self._report(~rows)
        self.active, self.point = self.active[rows], self.point[rows]
        self.target, self.tolerance = self.target[rows], self.tolerance[rows]
        self._best, self._least, self._reached = self._best[rows], self._least[rows], self._reached[rows]
        self._left = self._left[rows]
        self._first = None if self._first is None else self._first[rows]

    def count_further(self, evaluations: Tensor) -> None:
        """Add evaluations of g of the active rows, shape (A,), to the one that each point and each update has."""
        self._further[self.active] += evaluations

    def stall(self, rows: Tensor) -> None:
        """Take note that these of the active rows found no better point."""
        self._reached = torch.where(rows, int(Status.STALLED), self._reached)

    def solution(self, lipschitz: float | None) -> Solution:
        """Assemble the result."""
        self.keep(torch.zeros_like(self.active, dtype=torch.bool))
        residual = self._residual
        non_finite = self._status == Status.NON_FINITE
        limit = torch.maximum(self._limits, self._floor(self._all_targets, self._value))
        converged = (residual <= limit) & ~non_finite
        self._status[converged] = int(Status.CONVERGED)
        worse = ~converged & ~non_finite & ~(residual <= self._first_residual)
        self._status[worse] = int(Status.DIVERGED)
        return Solution(
            value=self._value,
            converged=converged,
            residual=residual,
            num_steps=self._steps,
            error_bound=None if lipschitz is None else self._rounded_residual() / (1 - lipschitz),
            status=self._status,
            further_evaluations=self._further,
        )

    def _report(self, rows: Tensor) -> None:
        """Write down what was reached in these of the active rows."""
        ended = self.active[rows]
        if ended.numel() == 0:
            return
        self._value[ended], self._residual[ended] = self._best[rows], self._least[rows]
        self._status[ended], self._steps[ended] = self._reached[rows], self._step
        if self._first is not None:
            self._first_residual[ended] = self._first[rows]

    def _floor(self, target: Tensor, point: Tensor) -> Tensor:
        """Return what rounding lets a residual reach; |z - x| stands for |g(x)|, which it differs from by that much."""
        sizes = self.norm(target), self.norm(point), self.norm(target - point)
        return rounding_floor(torch.stack(sizes).amax(dim=0).nan_to_num(nan=0.0, posinf=0.0))

    def _rounded_residual(self) -> Tensor:
        """Return residual + gamma u (|x| + |g(x)| + |z|), where |g(x)| <= |z - x| + residual, shape (B,)."""
        unit = torch.finfo(self._residual.dtype).eps / 2
        image = self.norm(self._all_targets - self._value) + self._residual
        return self._residual + ROUNDING_CONSTANT * unit * (
            self.norm(self._value) + image + self.norm(self._all_targets)
        )
