"""The direction in which x + g(x) is nearest to folding over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.diagnosis.local import beside, evaluating, only_finite, push, unit_vectors
from invattn.functional import arnoldi


@dataclass(frozen=True)
class FoldDirection:
    """The eigenvalue of J_g(x) with the smallest real part, and its eigenvector.

    Where lambda is real, f = x + g(x) stretches the direction v by 1 + lambda; it folds where lambda passes -1.

    Attributes:
        value: An estimate of lambda with shape (B,), complex; NaN where g or J is not finite.
        vector: v with the shape of x and Euclidean length 1 (the real part, where lambda is complex); zero where
            lambda is NaN.
    """

    value: Tensor
    vector: Tensor


@torch.no_grad()
def fold_direction(
    branch: Branch, x: Tensor, *, steps: int = 20, generator: torch.Generator | None = None
) -> FoldDirection:
    """Estimate the eigenvalue of smallest real part by Arnoldi iteration, with its eigenvector.

    Args:
        branch: g, in evaluation mode for the time of the call.
        x: Inputs of g with shape (B, ...).
        steps: Products J v; the estimate is exact up to rounding from the number of entries of a sample on.
        generator: Where the first vectors come from; None is torch's default generator.

    Returns:
        The estimates.

    Raises:
        ValueError: If steps is below 1 or x has another shape.

    References:
        Saad 2011, Numerical Methods for Large Eigenvalue Problems, Algorithm 6.2.
    """
    branch.check_input(x)

    def multiply(vector: Tensor) -> Tensor:
        return push(branch, x, vector)

    with evaluating(branch):
        space = arnoldi(multiply, unit_vectors(x, generator), steps=steps)
    square, finite = only_finite(space.hessenberg)
    values, vectors = torch.linalg.eig(square[:, :-1])
    # The rest of an exhausted space shows as zeros of the matrix, no eigenvalues of J: they are never chosen first.
    lowest = values.real.argmin(dim=-1)
    rows = torch.arange(x.shape[0], device=x.device)
    weights = vectors[rows, :, lowest].real.to(x.dtype)
    combined = (weights[:, None] @ space.basis[:, :-1])[:, 0]
    length = combined.norm(dim=-1)
    usable = finite & (length > 0)
    unit = torch.where(usable[:, None], combined / torch.where(usable, length, 1)[:, None], 0)
    value = torch.where(finite, values[rows, lowest], torch.nan)
    return FoldDirection(value=value.to(x.dtype.to_complex()), vector=unit.view_as(x))


def move_along(x: Tensor, vector: Tensor, distance: Tensor) -> Tensor:
    """Return x + distance v.

    Args:
        x: Shape (B, ...).
        vector: v with the shape of x.
        distance: Shape (B,).
    """
    return x + beside(distance, x) * vector
