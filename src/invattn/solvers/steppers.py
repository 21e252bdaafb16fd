"""Update rules of a fixed-point iteration, each for all active samples at once.

A stepper sees the current points x, their defects r = z - x - g(x) (so that the plain step is x + r), and the
size of each defect; it returns the next points. It keeps whatever history it needs, one row a sample, and drops
the rows of finished samples when told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Stepper(ABC):
    """One rule, for the duration of one solve."""

    @abstractmethod
    def propose(self, point: Tensor, defect: Tensor, size: Tensor, tolerance: Tensor) -> Tensor:
        """Return the next points.

        Args:
            point: x with shape (A, D).
            defect: r with shape (A, D).
            size: The norm of each defect, shape (A,).
            tolerance: What each size must reach, shape (A,).
        """

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Forget all samples but these rows, a boolean tensor with shape (A,)."""


class PlainStepper(Stepper):
    """x <- x + r = z - g(x): Algorithm 1 of the paper."""

    def propose(self, point: Tensor, defect: Tensor, size: Tensor, tolerance: Tensor) -> Tensor:
        return point + defect

    def keep(self, rows: Tensor) -> None:
        return None


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
        self._point: Tensor | None = None
        self._defect: Tensor | None = None
        self._size: Tensor | None = None
        self._best: tuple[Tensor, Tensor, Tensor] | None = None
        self._mixed: Tensor | None = None
        self._mixing: Tensor | None = None
        self._moves: list[Tensor] = []
        self._changes: list[Tensor] = []

    def propose(self, point: Tensor, defect: Tensor, size: Tensor, tolerance: Tensor) -> Tensor:
        if self._point is None or self._defect is None or self._size is None:
            return self._begin(point, defect, size)
        assert self._best is not None
        assert self._mixed is not None
        assert self._mixing is not None
        self._moves = [*self._moves, point - self._point][-self._depth :]
        self._changes = [*self._changes, defect - self._defect][-self._depth :]
        rejected = self._mixed & ~(size < self._best[2])
        better = (size < self._best[2]) | ~(self._mixed | rejected)
        self._best = _where(better, (point, defect, size), self._best)
        self._mixing = self._mixing | self._is_slow(size, tolerance)
        mix = self._mixing & ~rejected
        following = point + defect
        if bool(mix.any()):
            following = torch.where(mix[:, None], following - self._correction(defect), following)
        if bool(rejected.any()):
            column = rejected[:, None]
            following = torch.where(column, self._best[0] + self._best[1], following)
            point = torch.where(column, self._best[0], point)
            defect = torch.where(column, self._best[1], defect)
            size = torch.where(rejected, self._best[2], size)
            self._moves = [torch.where(column, 0, move) for move in self._moves]
            self._changes = [torch.where(column, 0, change) for change in self._changes]
        self._point, self._defect, self._size, self._mixed = point, defect, size, mix
        return following

    def keep(self, rows: Tensor) -> None:
        if self._point is None or self._defect is None or self._size is None:
            return
        assert self._best is not None
        assert self._mixed is not None
        assert self._mixing is not None
        self._point, self._defect, self._size = self._point[rows], self._defect[rows], self._size[rows]
        self._best = (self._best[0][rows], self._best[1][rows], self._best[2][rows])
        self._mixed, self._mixing = self._mixed[rows], self._mixing[rows]
        self._moves = [move[rows] for move in self._moves]
        self._changes = [change[rows] for change in self._changes]

    def _begin(self, point: Tensor, defect: Tensor, size: Tensor) -> Tensor:
        self._point, self._defect, self._size = point, defect, size
        self._best = (point, defect, size)
        self._mixed = torch.zeros_like(size, dtype=torch.bool)
        self._mixing = torch.full_like(self._mixed, self._patience is None)
        return point + defect

    def _is_slow(self, size: Tensor, tolerance: Tensor) -> Tensor:
        """Whether plain steps at the observed ratio would take longer than the patience allows."""
        if self._patience is None or len(self._moves) < 2:
            return torch.zeros_like(size, dtype=torch.bool)
        assert self._size is not None
        return size * (size / self._size) ** self._patience > tolerance

    def _correction(self, defect: Tensor) -> Tensor:
        """Return sum_k gamma_k (dx_k + dr_k), gamma minimising |r - sum_k gamma_k dr_k|_2, shape (A, D)."""
        changes = torch.stack(self._changes, dim=1)
        gram = (changes @ changes.mT).double()
        right = (changes @ defect[..., None]).double()
        length = gram.diagonal(dim1=-2, dim2=-1).sqrt()
        length = torch.where(length > 0, length, 1)[..., None]
        ridge = 8 * torch.finfo(defect.dtype).eps
        scaled = gram / (length * length.mT) + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        gamma = torch.linalg.solve_ex(scaled, right / length)[0] / length
        steps = torch.stack(self._moves, dim=1) + changes
        return torch.nan_to_num(gamma).to(defect.dtype).mT.matmul(steps)[:, 0]


def _where(
    rows: Tensor, first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    column = rows[:, None]
    return (
        torch.where(column, first[0], second[0]),
        torch.where(column, first[1], second[1]),
        torch.where(rows, first[2], second[2]),
    )
