"""How far the inverse of a map is off where no training data lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.bijections import Bijection

_BATCH = 50


@dataclass(frozen=True)
class InverseStress:
    """What came back of inputs of one kind.

    Attributes:
        name: What they are, in words.
        count: How many.
        converged: For how many the solver reached its tolerance.
        error_max: Largest |entry| of x - inverse(f(x)); infinite where something is not finite.
        relative_max: The same over max(1, largest |entry| of that x): rounding grows with x.
    """

    name: str
    count: int
    converged: int
    error_max: float
    relative_max: float


@torch.no_grad()
def inverse_stress(
    bijection: Bijection, x: Tensor, *, name: str, on_batch: Callable[[int], None] | None = None
) -> InverseStress:
    """Compute z = f(x), solve f(y) = z, and compare y with x.

    Uncertified flows with an exact likelihood may explode here while they invert test samples well.

    Args:
        bijection: f, in eval mode.
        x: Inputs with shape (n, ...), finite.
        name: What they are, in words.
        on_batch: Called with the number of inputs done, after each batch.

    References:
        Behrmann et al. 2021, "Understanding and mitigating exploding inverses in invertible neural networks".
    """
    errors, scales, converged = [], [], 0
    for part in torch.split(x, _BATCH):
        solution = bijection.solve(bijection(part))
        error = (solution.value - part).abs().flatten(1).amax(dim=1)
        errors.append(error.nan_to_num(nan=math.inf, posinf=math.inf))
        scales.append(part.abs().flatten(1).amax(dim=1).clamp_min(1.0))
        converged += int(solution.converged.sum())
        if on_batch is not None:
            on_batch(len(part))
    error, scale = torch.cat(errors), torch.cat(scales)
    return InverseStress(
        name=name,
        count=len(x),
        converged=converged,
        error_max=float(error.max()),
        relative_max=float((error / scale).max()),
    )
