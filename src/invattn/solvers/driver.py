"""The one loop of fixed-point solvers, and the points and reports of any solve in progress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invattn._conditions import rows_of
from invattn.norms import get_norm
from invattn.solvers.base import Solution, Solver, Status

_BLOW_UP = 1e6  # a defect this many times the first one has diverged
_LEAST_ULPS = 8
_PATIENCE = 3  # updates without a smaller defect after which rounding is thought to be all that is left

ROUNDING_CONSTANT = 16
"""gamma of the error bound: what rounding may add to a residual, in units of u (|x| + |g(x)| + |z|).

Measured, not proven: up to 4.1 were seen for 256 channels and 512 tokens; four times the channels double it.
"""


@dataclass(frozen=True, kw_only=True)
class IterativeSolver(Solver):
    """A solver that stops each sample by itself, once its residual is within atol + rtol |z| or is all rounding.

    Attributes:
        max_steps: The largest number of updates.
        atol: Absolute tolerance; None is 1e-6 in float32, 1e-12 in float64.
        rtol: Relative tolerance; None as above.
    """

    max_steps: int
    atol: float | None = None
    rtol: float | None = None
    _contiguous: ClassVar[bool] = True  # a token's channels lie side by side: products and norms are quicker

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative; got {self.max_steps}.")

    @torch.no_grad()
    def solve(
        self,
        branch: Callable[[Tensor], Tensor],
        target: Tensor,
        *,
        start: Tensor | None = None,
        lipschitz: float | None = None,
        norm: str = "inf,2",
    ) -> Solution:
        if self._contiguous:
            target, start = target.contiguous(), None if start is None else start.contiguous()
        state = SolveState(target, target if start is None else start, atol=self.atol, rtol=self.rtol, norm=norm)
        self._iterate(branch, state)
        return state.solution(lipschitz)

    @abstractmethod
    def _iterate(self, branch: Callable[[Tensor], Tensor], state: SolveState) -> None:
        """Move the points of a solve until every sample has ended, or the steps are used up."""


class Stepper(ABC):
    """One update rule for all active samples at once, for the duration of one solve.

    It keeps whatever history it needs, one row a sample, and drops the rows of finished samples when told.
    """

    @abstractmethod
    def propose(self, point: Tensor, defect: Tensor, size: Tensor, tolerance: Tensor) -> Tensor:
        """Return the next points.

        Args:
            point: x with shape (A, D).
            defect: r = z - x - g(x) with shape (A, D): the plain step is x + r.
            size: The norm of each defect, shape (A,).
            tolerance: What each size must reach, shape (A,).
        """

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Forget all samples but these rows, a boolean tensor with shape (A,)."""


def iterate(
    branch: Callable[[Tensor], Tensor],
    state: SolveState,
    stepper: Stepper,
    *,
    max_steps: int,
    early_stop: bool = True,
    refine: int = 0,
) -> None:
    """Update every sample until it ends; finished samples are not evaluated again.

    Args:
        branch: g, a function of any subset of the samples.
        state: The solve.
        stepper: The update rule.
        max_steps: The largest number of updates.
        early_stop: Stop each sample at its tolerance, and return the best point seen where it is never reached; else
            make exactly ``max_steps`` updates (unless a sample leaves the finite numbers) and return the last point.
        refine: Further updates of each sample once it is within tolerance.

    References:
        Zha et al. 2021, Algorithm 1.
    """
    for step in range(max_steps + 1):
        if state.active.numel() == 0:
            break
        image = branch(state.point).to(state.target.dtype)  # autocast may have returned a lower precision
        defect = state.target - state.point - image
        size = state.norm(defect)
        ended = state.record(size, step=step, early_stop=early_stop, refine=refine)
        if step == max_steps:
            break
        if bool(ended.any()):
            rows = ~ended
            state.keep(rows)
            stepper.keep(rows)
            branch = rows_of(branch, rows)
            defect, size = defect[rows], size[rows]
            if state.active.numel() == 0:
                break
        following = stepper.propose(state.point.flatten(1), defect.flatten(1), size, state.tolerance)
        state.point = following.view_as(state.point)


class SolveState:
    """The points of the active rows, and the reports of all; a row is written to its report when it ends.

    Attributes:
        active: Which samples are active, shape (A,).
        point: Their points; never changed in place.
        target: z of the active rows.
        tolerance: What the norm of their defects is asked to reach: atol + rtol |z|, at least 8 ulp of |z|, shape (A,).
            Where x or g(x) is larger than z, rounding may leave more than this of z - x - g(x): a sample that is down
            to the rounding of all three ends where its defect has ceased to fall, and has converged.
    """

    def __init__(self, target: Tensor, start: Tensor, *, atol: float | None, rtol: float | None, norm: str) -> None:
        self.norm = get_norm(norm)
        self.target, self.point = target, start
        default = 1e-12 if target.dtype == torch.float64 else 1e-6
        scale = self._scale = self._all_scales = self.norm(target)
        asked = (default if atol is None else atol) + (default if rtol is None else rtol) * scale
        self.tolerance = torch.maximum(asked, _least_ulps(scale))
        self.active = torch.arange(target.shape[0], device=target.device)
        self._all_targets, self._tolerances = target, self.tolerance
        self._best, self._least = self.point, torch.full_like(scale, torch.inf)
        self._first: Tensor | None = None
        self._reached = torch.full_like(self.active, int(Status.MAX_STEPS))
        self._within, self._since = torch.zeros_like(self.active), torch.zeros_like(self.active)
        self._value = torch.empty_like(self.point)
        self._residual, self._first_residual = torch.empty_like(scale), torch.empty_like(scale)
        self._status = self._reached.clone()
        self._steps, self._further = torch.zeros_like(self.active), torch.zeros_like(self.active)
        self._step = 0

    def record(self, size: Tensor, *, step: int, early_stop: bool = True, refine: int = 0) -> Tensor:
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
        done = reached & (self._within >= refine)
        self._within = self._within + reached.long()
        self._since = torch.where(better, 0, self._since + 1)
        stuck = self._since >= _PATIENCE
        if bool(stuck.any()):
            x, image = self._sizes(self.target, self._best)
            done |= stuck & (self._least <= _rounding(self._scale, x, image))
        return ~finite | blown | done

    def keep(self, rows: Tensor) -> None:
        """Drop the ended rows: all but these of the active ones, shape (A,), bool."""
        self._report(~rows)
        self.active, self.point = self.active[rows], self.point[rows]
        self.target, self.tolerance = self.target[rows], self.tolerance[rows]
        self._best, self._least, self._reached = self._best[rows], self._least[rows], self._reached[rows]
        self._scale, self._within, self._since = self._scale[rows], self._within[rows], self._since[rows]
        self._first = None if self._first is None else self._first[rows]

    def count_further(self, evaluations: Tensor) -> None:
        """Add evaluations of g of the active rows, shape (A,), to the one that each point and each update has."""
        self._further[self.active] += evaluations

    def stall(self, rows: Tensor) -> None:
        """Take note that these of the active rows found no better point."""
        self._reached = torch.where(rows, int(Status.STALLED), self._reached)

    def solution(self, lipschitz: float | None) -> Solution:
        """Assemble the result.

        Its ``error_bound`` is (residual + gamma u (|x| + |g(x)| + |z|)) / (1 - L), where |g(x)| is at most
        |z - x| + residual.

        References:
            docs/theory.md, "Consequences".
        """
        self._report(torch.ones_like(self.active, dtype=torch.bool))
        residual, scale = self._residual, self._all_scales
        non_finite = self._status == Status.NON_FINITE
        x, image = self._sizes(self._all_targets, self._value)
        limit = torch.maximum(self._tolerances, _rounding(scale, x, image))
        converged = (residual <= limit) & ~non_finite
        self._status[converged] = int(Status.CONVERGED)
        worse = ~converged & ~non_finite & ~(residual <= self._first_residual)
        self._status[worse] = int(Status.DIVERGED)
        bound = None
        if lipschitz is not None:
            unit = torch.finfo(residual.dtype).eps / 2
            bound = (residual + ROUNDING_CONSTANT * unit * (x + (image + residual) + scale)) / (1 - lipschitz)
        return Solution(
            value=self._value,
            converged=converged,
            residual=residual,
            num_steps=self._steps,
            error_bound=bound,
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

    def _sizes(self, target: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return |x| and |z - x|, which differs from |g(x)| by no more than the residual."""
        return self.norm(point), self.norm(target - point)


def _rounding(*sizes: Tensor) -> Tensor:
    """Return what rounding lets a sum of vectors of these sizes reach, shape as given."""
    return _least_ulps(torch.stack(sizes).amax(dim=0).nan_to_num(nan=0.0, posinf=0.0))


def _least_ulps(size: Tensor) -> Tensor:
    """Return 8 times the spacing of floating-point numbers at a size, shape as given."""
    exponent = torch.frexp(size).exponent - 1
    return _LEAST_ULPS * torch.ldexp(torch.full_like(size, torch.finfo(size.dtype).eps), exponent)
