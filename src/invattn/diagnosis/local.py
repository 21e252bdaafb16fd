"""What every look at the Jacobian of a branch shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.functional import arnoldi


@contextmanager
def evaluating(branch: Branch) -> Iterator[None]:
    """Evaluation mode, in which no forward changes a buffer; each module's own mode afterwards."""
    modes = [(module, module.training) for module in branch.modules()]
    branch.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def push(branch: Branch, x: Tensor, vector: Tensor) -> Tensor:
    """Return J v for vectors with shape (B, D)."""
    _, image = torch.func.jvp(branch, (x,), (vector.view_as(x),))  # type: ignore[misc]
    product: Tensor = image.flatten(1)
    return product


def unit_vectors(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return random directions of Euclidean length 1, shape (B, D)."""
    vectors = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator).flatten(1)
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit


def only_finite(hessenberg: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices in double precision, zero where not finite, and which samples are finite, shape (B,)."""
    finite = hessenberg.isfinite().all(dim=-1).all(dim=-1)
    return torch.where(finite[:, None, None], hessenberg, 0).double(), finite


def beside(numbers: Tensor, x: Tensor) -> Tensor:
    """Return one number a sample, shape (B,), in a shape that multiplies x, shape (B, ...)."""
    return numbers.reshape(-1, *(1 for _ in range(x.dim() - 1)))


_CHUNK = 64  # columns of J that are computed together


@torch.no_grad()
def det_sign(branch: Branch, x: Tensor) -> Tensor:
    """Return the sign of det(I + J_g(x)), from the dense Jacobian by elimination, one sample at a time.

    A contraction has the sign 1 everywhere. Where g grows by a factor below 1 far from 0, as a normalised average (with
    a non-negative kernel) of constrained values does, f has degree 1: the signs over all inputs with one and the same
    image add up to 1, so that a sign of -1 means further inputs with that image, two of them unless they coincide.

    Args:
        branch: g, in evaluation mode for the time of the call.
        x: Inputs of g with shape (B, ...); D entries a sample need D products J v, D^2 numbers and D^3 operations:
            about a second at D = 1,000 and ten at 3,000 on one core.

    Returns:
        1 or -1 with shape (B,), int64; 0 where the determinant vanishes or J is not finite.

    References:
        docs/failing-blocks.md, "What diagnose measures"; Deimling 1985, Nonlinear Functional Analysis (degree).
    """
    branch.check_input(x)
    with evaluating(branch):
        signs = [_sign(branch, x[row : row + 1]) for row in range(x.shape[0])]
    return torch.stack(signs) if signs else torch.zeros(0, dtype=torch.long, device=x.device)


def _sign(branch: Branch, sample: Tensor) -> Tensor:
    size = sample[0].numel()
    unit = torch.eye(size, dtype=sample.dtype, device=sample.device).view(size, *sample.shape)

    def column(direction: Tensor) -> Tensor:
        _, image = torch.func.jvp(branch, (sample,), (direction,))  # type: ignore[misc]
        product: Tensor = image.flatten()
        return product

    # Rows of the result are columns of J; the transpose has the same determinant.
    jacobian: Tensor = torch.func.vmap(column, chunk_size=_CHUNK)(unit)
    if not bool(jacobian.isfinite().all()):
        return torch.zeros((), dtype=torch.long, device=sample.device)
    jacobian.diagonal().add_(1)
    sign: Tensor = torch.linalg.slogdet(jacobian).sign
    return sign.long()


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
