"""All local estimates of one branch at given points, and which of the points its inverse is expected to lose."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from invattn._conditions import rows_of
from invattn.branches import Branch
from invattn.diagnosis.jacobian import det_sign, dominant_eigenvalue, spectral_norm_estimate
from invattn.diagnosis.second_preimage import SecondPreimages, SecondPreimageSearch, second_preimages
from invattn.diagnosis.stretch import Ascent, local_stretch
from invattn.norms import get_norm


@dataclass(frozen=True)
class Checks:
    """What is looked at, and how closely.

    Attributes:
        spectrum_steps: Krylov steps of spectral radius and norm at x.
        path: Points x + s (f(x) - x) at which the spectral radius is estimated too: the fixed-point inverse starts at
            f(x). Empty for none.
        path_steps: Krylov steps at each of those.
        picard_steps: Steps of the fixed-point inverse that the flag is about, Algorithm 1 of the paper.
        remaining: A sample is slow where the radius to the power of ``picard_steps`` exceeds this share.
        least_pull: A second preimage competes with x from this share of the segment between them on; see ``pull`` of
            :class:`SecondPreimages`. A heuristic.
        det_limit: The sign of det(I + J) is computed for samples of at most so many entries. 4096 includes 3 x 32 x 32
            images, at some ten seconds each.
        ascent: Of the local Lipschitz ratio; None leaves it out.
        search: Of second preimages; None leaves it out.
    """

    spectrum_steps: int = 30
    path: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    path_steps: int = 15
    picard_steps: int = 100
    remaining: float = 0.03
    least_pull: float = 0.25
    det_limit: int = 512
    ascent: Ascent | None = field(default_factory=Ascent)
    search: SecondPreimageSearch | None = field(default_factory=SecondPreimageSearch)

    def __post_init__(self) -> None:
        if self.picard_steps < 1 or not 0 < self.remaining < 1:
            raise ValueError(
                f"picard_steps must be at least 1, remaining between 0 and 1; got {self.picard_steps}, "
                f"{self.remaining}."
            )

    @property
    def slow_from(self) -> float:
        """The spectral radius above which the fixed-point inverse is too slow for ``picard_steps``."""
        return float(self.remaining ** (1 / self.picard_steps))


REASONS = ("repelling", "slow", "competing")
"""Why a sample may be flagged."""


@dataclass(frozen=True)
class Diagnosis:
    """What was measured of each sample; every number is an estimate, every tensor without note has shape (B,).

    Attributes:
        spectral_norm: |J_g(x)|_2, from below. A certified block may exceed 1 here: its bound is in another norm.
        spectral_radius: Largest |eigenvalue| of J_g(x).
        eigenvalue: That eigenvalue, complex.
        path_radius: Largest spectral radius on the way from x to f(x), where the fixed-point inverse starts.
        det_sign: Sign of det(I + J_g(x)): 1, -1, or 0 where it was not computed (or vanishes).
        lipschitz_ratio: Largest local Lipschitz ratio of g found near x, in ``norm``; NaN where it was left out.
        second_preimage: Whether another input with the same image was found, bool.
        preimage: That input, in the shape of x; x itself where none was found.
        distance: Its Euclidean distance from x; 0 where none was found.
        output_difference: Distance of the two images, in ``norm``.
        pull: Share of the segment from x to it on which f(x) - f points towards it; 0 where none was found.
        competing: That share is so large that an iteration from f(x) may end there, bool.
        repelling: The spectral radius is above 1: the fixed-point inverse moves away from x, bool.
        slow: It stays near x, or passes on its way, so slowly that its steps do not suffice, bool. Never where g has a
            certificate: the number of steps that suffices is known there.
        norm: The norm of ``lipschitz_ratio`` and ``output_difference``.
    """

    spectral_norm: Tensor
    spectral_radius: Tensor
    eigenvalue: Tensor
    path_radius: Tensor
    det_sign: Tensor
    lipschitz_ratio: Tensor
    second_preimage: Tensor
    preimage: Tensor
    distance: Tensor
    output_difference: Tensor
    pull: Tensor
    competing: Tensor
    repelling: Tensor
    slow: Tensor
    norm: str

    @property
    def flagged(self) -> Tensor:
        """Whether the fixed-point inverse is expected to lose the sample, for any of the reasons; shape (B,), bool."""
        return self.repelling | self.slow | self.competing

    def reasons(self, sample: int) -> tuple[str, ...]:
        """Return why a sample is flagged, of :data:`REASONS`; empty where it is not."""
        marks = dict(zip(REASONS, (self.repelling, self.slow, self.competing), strict=True))
        return tuple(name for name, mark in marks.items() if bool(mark[sample]))

    def with_preimage(self, preimage: Tensor) -> Diagnosis:
        """Return the same numbers about reshaped inputs."""
        return replace(self, preimage=preimage)


@torch.no_grad()
def diagnose_branch(
    branch: Branch, x: Tensor, *, checks: Checks | None = None, generator: torch.Generator | None = None
) -> Diagnosis:
    """Diagnose x + g(x) at given points; see :func:`invattn.diagnose`.

    Args:
        branch: g, in evaluation mode for the time of the call.
        x: Inputs of g with shape (B, ...).
        checks: What to look at; None is the default of :class:`Checks`.
        generator: Where random first vectors come from; None is torch's default generator.
    """
    branch.check_input(x)
    checks = Checks() if checks is None else checks
    norm = branch.certificate_norm if branch.certified else "inf,2"
    dominant = dominant_eigenvalue(branch, x, steps=checks.spectrum_steps, generator=generator).value
    radius = dominant.abs()
    path_radius = _path_radius(branch, x, radius, checks, generator)
    pairs = _search(branch, x, path_radius, checks, norm, generator)
    ratio = torch.full_like(radius, torch.nan)
    if checks.ascent is not None:
        ratio = local_stretch(branch, x, norm=norm, ascent=checks.ascent, generator=generator)
    signs = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
    return Diagnosis(
        spectral_norm=spectral_norm_estimate(branch, x, steps=checks.spectrum_steps, generator=generator),
        spectral_radius=radius,
        eigenvalue=dominant,
        path_radius=path_radius,
        det_sign=det_sign(branch, x) if x[0].numel() <= checks.det_limit else signs,
        lipschitz_ratio=ratio,
        second_preimage=pairs.found,
        preimage=pairs.value,
        distance=pairs.distance,
        output_difference=pairs.output_difference,
        pull=pairs.pull,
        competing=pairs.found & (pairs.pull >= checks.least_pull),
        # A radius that is not a number belongs to a point that no inverse can be expected to find.
        repelling=~(radius <= 1),
        slow=torch.zeros_like(pairs.found) if branch.certified else ~(path_radius <= checks.slow_from),
        norm=norm,
    )


def _path_radius(
    branch: Branch, x: Tensor, radius: Tensor, checks: Checks, generator: torch.Generator | None
) -> Tensor:
    """Return the largest spectral radius at x and on the way to f(x)."""
    step = branch(x)
    for share in checks.path:
        found = dominant_eigenvalue(branch, x + share * step, steps=checks.path_steps, generator=generator).value
        radius = torch.maximum(radius, found.abs())
    return radius


def _search(
    branch: Branch, x: Tensor, radius: Tensor, checks: Checks, norm: str, generator: torch.Generator | None
) -> SecondPreimages:
    """Search the samples that are worth it."""
    nothing = SecondPreimages.none(x)
    if checks.search is None:
        return nothing
    finite = get_norm(norm)(branch(x)).isfinite()
    rows = torch.nonzero((radius >= checks.search.from_radius) & finite)[:, 0]
    if rows.numel() == 0:
        return nothing
    chosen = cast(Branch, rows_of(branch, rows))
    pairs = second_preimages(chosen, x[rows], norm=norm, search=checks.search, generator=generator)
    nothing.put(rows, pairs)
    return nothing
