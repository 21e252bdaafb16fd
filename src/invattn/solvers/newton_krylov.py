"""Newton's method with GMRES: for branches that are no contraction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invattn._conditions import rows_of
from invattn.norms import euclidean_norm
from invattn.solvers.driver import IterativeSolver, SolveState
from invattn.solvers.gmres import gmres

_DECREASE = 1e-4  # what a step t must save: |r| is to fall by this times t |r|
_HALVINGS = 12
_LOOSEST, _SAFETY = 0.1, 0.9  # Eisenstat and Walker's largest forcing term, and their gamma


@dataclass(frozen=True)
class NewtonKrylov(IterativeSolver):
    """Newton's method for x + g(x) - z = 0, each linear equation (I + J) d = r solved by GMRES.

    It needs no contraction, only that I + J is regular on the way: eigenvalues of J of modulus above 1, at which
    Picard iteration diverges, do not matter. A step is halved until the Euclidean norm of the residual falls; a
    sample for which no such step is found ends as STALLED, at its best point. ``num_steps`` of the report counts
    Newton steps; ``evaluations`` adds the Jacobian-vector products and the trial points. g must allow forward-mode
    differentiation.

    Attributes:
        max_steps: The largest number of Newton steps.
        krylov: The largest dimension of a Krylov space.
        restarts: How often GMRES begins a new space within one step.
        atol: Absolute tolerance; None is 1e-6 in float32, 1e-12 in float64.
        rtol: Relative tolerance; None as above.

    References:
        Knoll and Keyes 2004; Eisenstat and Walker 1996 (how exactly each linear equation is solved).
    """

    max_steps: int = 30
    krylov: int = 30
    restarts: int = 2
    _contiguous: ClassVar[bool] = False  # most of its time goes into products with J, not into norms

    def __post_init__(self) -> None:
        if self.max_steps < 0 or self.restarts < 0:
            raise ValueError(f"max_steps and restarts must not be negative; got {self.max_steps} and {self.restarts}.")
        if self.krylov < 1:
            raise ValueError(f"krylov must be at least 1; got {self.krylov}.")

    def _iterate(self, branch: Callable[[Tensor], Tensor], state: SolveState) -> None:
        image = branch(state.point).to(state.target.dtype)  # autocast may have returned a lower precision
        forcing = torch.full_like(state.tolerance, _LOOSEST)
        for step in range(self.max_steps + 1):
            defect = state.target - state.point - image
            size = state.norm(defect)
            active = ~state.record(size, step=step)
            state.keep(active)
            branch = rows_of(branch, active)
            if step == self.max_steps or state.active.numel() == 0:
                break
            defect, size, forcing = defect[active], size[active], forcing[active]
            # No linear equation needs to be solved to better than half of what is left to reach.
            direction = self._direction(branch, state, defect, torch.maximum(forcing, 0.5 * state.tolerance / size))
            length = euclidean_norm(defect)
            found, image, left = _search(branch, state, direction, length)
            forcing = (_SAFETY * (left / length).square()).clamp(max=_LOOSEST)
            state.stall(~found)
            state.keep(found)
            branch = rows_of(branch, found)
            image, forcing = image[found], forcing[found]

    def _direction(
        self, branch: Callable[[Tensor], Tensor], state: SolveState, defect: Tensor, forcing: Tensor
    ) -> Tensor:
        """Return d with |r - (I + J) d|_2 <= forcing |r|_2, as far as the Krylov spaces reach."""

        def multiply(vectors: Tensor, rows: Tensor) -> Tensor:
            points = state.point[rows]
            _, image = torch.func.jvp(rows_of(branch, rows), (points,), (vectors.view_as(points),))  # type: ignore[misc]
            product: Tensor = vectors + image.flatten(1).to(vectors.dtype)
            return product

        entries = defect.flatten(1)
        scale = entries.abs().amax(dim=1, keepdim=True)  # the squares of what remains neither overflow nor vanish
        right = entries / scale
        limit = forcing * right.norm(dim=-1)
        solved = gmres(multiply, right, limit=limit, krylov=self.krylov, restarts=self.restarts)
        state.count_further(solved.products)
        return (solved.solution * scale).view_as(defect)


def _search(
    branch: Callable[[Tensor], Tensor], state: SolveState, direction: Tensor, length: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Move each active point by the first of d, d/2, d/4, ... that lowers its residual, of length |r|_2, enough.

    Trials beyond one an accepted step are counted. Returns which rows were moved, shape (A,), g at the points, and
    |r|_2 there.
    """
    image, left = torch.zeros_like(direction), length.clone()
    found = torch.zeros_like(length, dtype=torch.bool)
    trials = torch.zeros_like(state.active)
    origin, point = state.point, state.point.clone()
    rows = torch.arange(length.numel(), device=length.device)
    for halving in range(_HALVINGS + 1):
        share = 0.5**halving
        trial = origin[rows] + share * direction[rows]
        trial_image = rows_of(branch, rows)(trial).to(trial.dtype)
        trials[rows] += 1
        defect = state.target[rows] - trial - trial_image
        size = euclidean_norm(defect)
        good = (size <= (1 - _DECREASE * share) * length[rows]) | (state.norm(defect) <= state.tolerance[rows])
        chosen = rows[good]
        point[chosen], image[chosen], left[chosen], found[chosen] = trial[good], trial_image[good], size[good], True
        rows = rows[~good]
        if rows.numel() == 0:
            break
    state.point = point
    state.count_further(trials - found.long())
    return found, image, left
