"""Another input with the same image: Newton's method from starts along the direction in which f folds."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.diagnosis.jacobian import beside, evaluating, fold_direction
from invattn.norms import euclidean_norm, get_norm
from invattn.solvers import NewtonKrylov, Solver


@dataclass(frozen=True)
class SecondPreimageSearch:
    """Where a search starts, how it proceeds, and what it accepts.

    Starts are x + t v and x - t v for the eigenvector v of J_g(x) with the eigenvalue of smallest real part. Each
    start y first follows damped steps y + relaxation (z - f(y)): these leave inputs at which f is folded over, and end
    near an input whose image is z; Newton's method then solves f(y) = z from there.

    Attributes:
        distances: t as shares of |x|_2 (of 1 where x = 0), each taken in both directions.
        relaxation: Length of a damped step, above 0 and at most 1; where the eigenvalue lambda of v is beyond -2, that
            times 3 / (1 + |lambda|), so that the steps stay stable.
        steps: Damped steps of each start in one round.
        rounds: How often a start may take its damped steps: again from where they ended, if Newton's method did not
            converge from there.
        newton: What solves f(y) = z from there.
        least_distance: What counts as another input: |y - x|_2 is at least this share of |x|_2.
        flatness: What counts as the same image: |f(y) - f(x)| is at most this share of |y - x|.
        enough_pull: A sample is not searched further once one with this ``pull`` was found.
        from_radius: Samples whose J_g has a spectral radius below this are not searched. A heuristic, to save time:
            another input may exist wherever g is no contraction somewhere. 0 searches all.
    """

    distances: tuple[float, ...] = (0.25, 0.5)
    relaxation: float = 0.6
    steps: int = 100
    rounds: int = 3
    newton: Solver = field(default_factory=lambda: NewtonKrylov(max_steps=12, krylov=20, restarts=0))
    least_distance: float = 0.01
    flatness: float = 1e-5
    enough_pull: float = 0.5
    from_radius: float = 0.5

    def __post_init__(self) -> None:
        if not self.distances or min(self.distances) <= 0:
            raise ValueError(f"distances must hold positive numbers; got {self.distances}.")
        if not 0 < self.relaxation <= 1 or self.steps < 0 or self.rounds < 1:
            raise ValueError(
                "relaxation must be above 0 and at most 1, steps not negative, rounds at least 1; got "
                f"{self.relaxation}, {self.steps}, {self.rounds}."
            )


@dataclass(frozen=True)
class SecondPreimages:
    """Inputs y with f(y) = f(x), y different from x.

    Attributes:
        found: Whether one was found, shape (B,), bool.
        value: y with the shape of x; x itself where none was found.
        distance: |y - x|_2, shape (B,).
        output_difference: |f(y) - f(x)| in the norm asked for, shape (B,).
        pull: Share of the segment from x to y on which z - f points towards y, shape (B,): the larger, the likelier an
            iteration that starts at z ends in y and not in x. 0 where none was found.
    """

    found: Tensor
    value: Tensor
    distance: Tensor
    output_difference: Tensor
    pull: Tensor

    @classmethod
    def none(cls, x: Tensor) -> SecondPreimages:
        """Return what is known of x before a search."""
        found = torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
        return cls(found, x.clone(), *(x.new_zeros(x.shape[0]) for _ in range(3)))

    def put(self, rows: Tensor, found: SecondPreimages) -> None:
        """Write what was found for some samples."""
        for own, new in zip(vars(self).values(), vars(found).values(), strict=True):
            own[rows] = new


@torch.no_grad()
def second_preimages(
    branch: Branch,
    x: Tensor,
    *,
    norm: str = "inf,2",
    search: SecondPreimageSearch | None = None,
    generator: torch.Generator | None = None,
) -> SecondPreimages:
    """Search for other inputs with the images of x; what is found is proven by its numbers, what is not may exist.

    Args:
        branch: g, in evaluation mode for the time of the call.
        x: Inputs of g with shape (B, ...); every sample is searched, whatever ``from_radius`` says.
        norm: The norm in which images are compared: "inf,2" or "2".
        search: Where and how; None is the default of :class:`SecondPreimageSearch`.
        generator: Where the first vectors of the eigenvectors come from; None is torch's default generator.

    Returns:
        Of each sample the one with the largest pull.
    """
    branch.check_input(x)
    search = SecondPreimageSearch() if search is None else search
    with evaluating(branch):
        image = x + branch(x)
        fold = fold_direction(branch, x, generator=generator)
        relaxation = search.relaxation * (3 / (1 + fold.value.abs())).clamp(max=1)
        size = euclidean_norm(x)
        scale = torch.where(size > 0, size, 1)
        best = SecondPreimages.none(x)
        hunt = _Hunt(branch, x, image, search.least_distance * scale, relaxation, search, norm)
        for distance in (sign * share for share in search.distances for sign in (1, -1)):
            hunt.improve(best, start=x + beside(distance * scale, x) * fold.vector)
    return best


_CHECK_EVERY = 10
_NEAR = 1e-4  # a residual of this share of |y - x| is within reach of Newton's method
_PULL_POINTS = 20


@dataclass(frozen=True)
class _Hunt:
    """What all starts of a search share."""

    branch: Branch
    x: Tensor
    image: Tensor
    least: Tensor
    relaxation: Tensor
    search: SecondPreimageSearch
    norm: str

    def improve(self, best: SecondPreimages, *, start: Tensor) -> None:
        """Follow one start of every sample, and keep what pulls more than the best so far."""
        rows = torch.nonzero(~best.found | (best.pull < self.search.enough_pull))[:, 0]
        point = start[rows]
        for _ in range(self.search.rounds):
            if rows.numel() == 0:
                return
            point = self._relax(point, rows)
            away = ~(euclidean_norm(point - self.x[rows]) < self.least[rows])
            # Where the damped steps left the finite numbers, Newton's method begins at the start itself.
            finite = point.flatten(1).isfinite().all(dim=1)
            point = torch.where(beside(finite, point), point, start[rows])[away]
            rows = rows[away]
            if rows.numel() == 0:
                return
            solution = self.search.newton.solve(self.branch, self.image[rows], start=point, norm=self.norm)
            self._keep(best, solution.value, rows)
            again = ~solution.converged & finite[away]
            rows, point = rows[again], point[again]

    def _relax(self, start: Tensor, rows: Tensor) -> Tensor:
        """Follow the damped steps; samples stop that have come back to x, or so near to another preimage as to ask for
        Newton's method.
        """
        end, point = start.clone(), start
        place = torch.arange(start.shape[0], device=start.device)
        for step in range(1, self.search.steps + 1):
            defect = self.image[rows] - point - self.branch(point)
            point = point + beside(self.relaxation[rows], point) * defect
            if step % _CHECK_EVERY and step < self.search.steps:
                continue
            end[place] = point
            distance = euclidean_norm(point - self.x[rows])
            going = (distance >= self.least[rows]) & (euclidean_norm(defect) > _NEAR * distance)
            going &= point.flatten(1).isfinite().all(dim=1)
            place, rows, point = place[going], rows[going], point[going]
            if place.numel() == 0:
                break
        return end

    def _keep(self, best: SecondPreimages, other: Tensor, rows: Tensor) -> None:
        """Note which points are another input with the same image, where they pull more than the best so far."""
        measure = get_norm(self.norm)
        change = other - self.x[rows]
        distance = euclidean_norm(change)
        difference = measure(other + self.branch(other) - self.image[rows])
        good = (distance >= self.least[rows]) & (difference <= self.search.flatness * measure(change))
        rows, change = rows[good], change[good]
        pull = self._pull(change, rows)
        better = ~best.found[rows] | (pull > best.pull[rows])
        chosen = rows[better]
        value, distance, difference = (part[good][better] for part in (other, distance, difference))
        found = torch.ones_like(chosen, dtype=torch.bool)
        best.put(chosen, SecondPreimages(found, value, distance, difference, pull[better]))

    def _pull(self, change: Tensor, rows: Tensor) -> Tensor:
        """Return the share of points x + s (y - x), 0 < s < 1, at which z - f has a positive part along y - x."""
        count = torch.zeros_like(self.least[rows])
        if rows.numel() == 0:
            return count
        for number in range(_PULL_POINTS):
            point = self.x[rows] + (number + 0.5) / _PULL_POINTS * change
            defect = self.image[rows] - point - self.branch(point)
            count += (defect * change).flatten(1).sum(dim=1) > 0
        return count / _PULL_POINTS
