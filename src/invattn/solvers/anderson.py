"""Anderson mixing: from the second step on, or only where plain steps are slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from invattn.solvers.driver import IterativeSolver, SolveState, Stepper, iterate


@dataclass(frozen=True)
class Anderson(IterativeSolver):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1; got {self.depth}.")

    def _iterate(self, branch: Callable[[Tensor], Tensor], state: SolveState) -> None:
        iterate(branch, state, AndersonStepper(depth=self.depth, patience=None), max_steps=self.max_steps)


@dataclass(frozen=True)
class Adaptive(IterativeSolver):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1; got {self.depth}.")
        if self.patience < 0 or self.refine < 0:
            raise ValueError(f"patience and refine must not be negative; got {self.patience} and {self.refine}.")

    def _iterate(self, branch: Callable[[Tensor], Tensor], state: SolveState) -> None:
        stepper = AndersonStepper(depth=self.depth, patience=self.patience)
        iterate(branch, state, stepper, max_steps=self.max_steps, refine=self.refine)


class AndersonStepper(Stepper):
    """Anderson mixing per sample, with the plain step from the best point as its safeguard.

    A mixed step whose defect is larger than the best so far is dropped: the sample restarts at its best point with
    a plain step and no history. In a contraction that step always helps, so the defects of a certified block go to
    zero whatever mixing does.

    Args:
        depth: m, how many differences are mixed.
        patience: Mix a sample only once its observed ratio of defects predicts more than this many further plain
            steps; None mixes from the second step on.

    References:
        Walker and Ni 2011 (type II, in the form of differences).
    """

    def __init__(self, *, depth: int, patience: int | None) -> None:
        self._depth = depth
        self._patience = patience
        self._last: _Last | None = None
        self._history: _History | None = None
        self._proposals = 0

    def propose(self, point: Tensor, defect: Tensor, size: Tensor, tolerance: Tensor) -> Tensor:
        last, self._proposals = self._last, self._proposals + 1
        if last is None:
            none = torch.zeros_like(size, dtype=torch.bool)
            self._last = _Last(point, defect, size, mixed=none, mixing=none if self._patience is not None else ~none)
            return point + defect
        if self._history is None:
            self._history = _History(point, depth=self._depth)
        rejected = last.mixed & ~(size < last.size)
        some_rejected = bool(rejected.any())
        if some_rejected:  # back to the point before, which is the best one
            column = rejected[:, None]
            point, defect = torch.where(column, last.point, point), torch.where(column, last.defect, defect)
            size = torch.where(rejected, last.size, size)
        self._history.add(point - last.point, defect - last.defect)
        if some_rejected:
            self._history.forget(rejected)
        mixing = last.mixing | self._is_slow(size, last.size, tolerance)
        mix = mixing & ~rejected
        following = point + defect
        if bool(mix.any()):
            following = following - self._history.correction(defect, mix)
        self._last = _Last(point, defect, size, mixed=mix, mixing=mixing)
        return following

    def keep(self, rows: Tensor) -> None:
        if self._last is not None:
            self._last = _Last(*(tensor[rows] for tensor in self._last))
        if self._history is not None:
            self._history.keep(rows)

    def _is_slow(self, size: Tensor, previous: Tensor, tolerance: Tensor) -> Tensor:
        """Whether plain steps at the observed ratio would take longer than the patience allows."""
        if self._patience is None or self._proposals < 3:
            return torch.zeros_like(size, dtype=torch.bool)
        return size * (size / previous) ** self._patience > tolerance


class _Last(NamedTuple):
    """What the last step started from: the best point so far, one row a sample."""

    point: Tensor
    defect: Tensor
    size: Tensor
    mixed: Tensor  # whether that step was mixed
    mixing: Tensor  # whether the sample is mixed from now on


class _History:
    """The last m differences dx and dr of every sample, in space that is taken once, and the products <dr_k, dr_l>."""

    def __init__(self, like: Tensor, *, depth: int) -> None:
        rows, width = like.shape
        self._changes = like.new_zeros(rows, depth, width)  # dr
        self._steps = like.new_zeros(rows, depth, width)  # dx + dr
        self._gram = like.new_zeros(rows, depth, depth, dtype=torch.float64)
        self._next = 0

    def add(self, move: Tensor, change: Tensor) -> None:
        """Put dx and dr in the place of the oldest ones, shape (A, D)."""
        place = self._next
        self._next = (place + 1) % self._changes.shape[1]
        self._changes[:, place] = change
        self._steps[:, place] = move + change
        products = (self._changes @ change[..., None])[..., 0].to(self._gram.dtype)
        self._gram[:, place], self._gram[:, :, place] = products, products

    def forget(self, rows: Tensor) -> None:
        """Drop everything of these rows, shape (A,), bool."""
        self._changes[rows], self._steps[rows], self._gram[rows] = 0, 0, 0

    def keep(self, rows: Tensor) -> None:
        """Drop all but these rows, shape (A,), bool."""
        self._changes, self._steps, self._gram = self._changes[rows], self._steps[rows], self._gram[rows]

    def correction(self, defect: Tensor, mix: Tensor) -> Tensor:
        """Return sum_k gamma_k (dx_k + dr_k), gamma minimising |r - sum_k gamma_k dr_k|_2; 0 for rows not to mix."""
        right = (self._changes @ defect[..., None]).to(self._gram.dtype)
        length = self._gram.diagonal(dim1=-2, dim2=-1).sqrt()
        length = torch.where(length > 0, length, 1)[..., None]
        ridge = 8 * torch.finfo(defect.dtype).eps
        scaled = self._gram / (length * length.mT)
        scaled.diagonal(dim1=-2, dim2=-1).add_(ridge)
        gamma = torch.linalg.solve_ex(scaled, right / length)[0] / length
        gamma = torch.where(mix[:, None, None], torch.nan_to_num(gamma), 0).to(defect.dtype)
        return (gamma.mT @ self._steps)[:, 0]
