"""The Jacobian J_g(x) of a branch at given points: its spectrum, its norm, and how f = x + g(x) folds.

Where an eigenvalue of J_g has modulus above 1, the fixed-point inverse x <- z - g(x) moves away from x; where it is
real and below -1, another input may have the same image. Both are found by Krylov iterations on products J v and
J^T v; J itself, of N C rows, is built for the sign of a determinant alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.functional.spectral import arnoldi

_CHUNK = 64  # columns of J that are computed together


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


def beside(numbers: Tensor, x: Tensor) -> Tensor:
    """Return one number a sample, shape (B,), in a shape that multiplies x, shape (B, ...)."""
    return numbers.reshape(-1, *(1 for _ in range(x.dim() - 1)))


@dataclass(frozen=True)
class DominantEigenvalue:
    """An estimate of the eigenvalue of largest modulus, and how well it fits.

    Attributes:
        value: lambda with shape (B,), complex; NaN where g or J is not finite.
        residual: |J y - lambda y|_2 of the unit vector y it comes with, shape (B,): lambda is an eigenvalue of a
            matrix that close to J. 0 where the search space is all of R^{N C}.
    """

    value: Tensor
    residual: Tensor


def spectral_radius(branch: Branch, x: Tensor, *, steps: int = 40, generator: torch.Generator | None = None) -> Tensor:
    """Estimate max |eigenvalue of J_g(x)| of each sample; see :func:`dominant_eigenvalue`.

    Args:
        branch: g, in evaluation mode for the time of the call; its weights, buffers and mode stay as they are.
        x: Tokens with shape (B, N, C).
        steps: Products J v; the estimate is exact up to rounding from N C on.
        generator: Where the first vectors come from; None is torch's default generator.

    Returns:
        An estimate, no bound, with shape (B,) and the dtype of x.

    Raises:
        ValueError: If steps is below 1 or x has another shape.
    """
    radius: Tensor = dominant_eigenvalue(branch, x, steps=steps, generator=generator).value.abs()
    return radius


@torch.no_grad()
def dominant_eigenvalue(
    branch: Branch, x: Tensor, *, steps: int = 40, generator: torch.Generator | None = None
) -> DominantEigenvalue:
    """Estimate the eigenvalue of J_g(x) of largest modulus, real or complex, by Arnoldi iteration.

    The Krylov space of v, J v, J^2 v, ... is orthonormalised; the eigenvalues of J compressed to it approach the
    outer ones of J.

    Args:
        branch: As in :func:`spectral_radius`.
        x: Tokens with shape (B, N, C).
        steps: Products J v.
        generator: Where v comes from; None is torch's default generator.

    Returns:
        The estimate and its residual.

    Raises:
        ValueError: If steps is below 1 or x has another shape.

    References:
        Saad 2011, Numerical Methods for Large Eigenvalue Problems, Algorithm 6.2.
    """
    _, square, finite = _compressed(branch, x, steps, generator)
    values, vectors = torch.linalg.eig(square[:, :-1])
    best = values.abs().argmax(dim=-1, keepdim=True)
    last = vectors[:, -1].gather(-1, best)[:, 0].abs()
    return DominantEigenvalue(
        value=torch.where(finite, values.gather(-1, best)[:, 0], torch.nan).to(x.dtype.to_complex()),
        residual=torch.where(finite, square[:, -1, -1].abs() * last, torch.nan).to(x.dtype),
    )


@torch.no_grad()
def spectral_norm_estimate(
    branch: Branch, x: Tensor, *, steps: int = 30, generator: torch.Generator | None = None
) -> Tensor:
    """Estimate |J_g(x)|_2, the largest singular value of the Jacobian in the Euclidean norm, from below.

    Lanczos iteration on J^T J. In this norm a certified block may exceed 1: its certificate holds in |.|_{inf,2},
    and |J|_2 <= sqrt(N) |J|_{inf,2}.

    Args:
        branch: As in :func:`spectral_radius`.
        x: Tokens with shape (B, N, C).
        steps: Products J^T J v; the estimate is exact up to rounding from N C on.
        generator: Where the first vectors come from; None is torch's default generator.

    Returns:
        An estimate with shape (B,), never above the truth but for rounding; NaN where g or J is not finite.

    Raises:
        ValueError: If steps is below 1 or x has another shape.

    References:
        Golub and Van Loan 2013, Section 10.1; docs/theory.md, "Consequences".
    """
    branch.check_input(x)
    with evaluating(branch):
        _, pull = torch.func.vjp(branch, x)  # type: ignore[misc]

        def multiply(vector: Tensor) -> Tensor:
            (product,) = pull(push(branch, x, vector).view_as(x))
            result: Tensor = product.flatten(1)
            return result

        _, square, finite = _krylov(multiply, x, steps, generator)
    gram = square[:, :-1]
    largest = torch.linalg.eigvalsh((gram + gram.mT) / 2)[:, -1]
    return torch.where(finite, largest.clamp_min(0).sqrt(), torch.nan).to(x.dtype)


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
    basis, square, finite = _compressed(branch, x, steps, generator)
    values, vectors = torch.linalg.eig(square[:, :-1])
    # The rest of an exhausted space shows as zeros of the matrix, no eigenvalues of J: they are never chosen first.
    lowest = values.real.argmin(dim=-1)
    rows = torch.arange(x.shape[0], device=x.device)
    combined = (vectors[rows, :, lowest].real.to(x.dtype)[:, None] @ basis[:, :-1])[:, 0]
    length = combined.norm(dim=-1)
    usable = finite & (length > 0)
    unit = torch.where(usable[:, None], combined / torch.where(usable, length, 1)[:, None], 0)
    value = torch.where(finite, values[rows, lowest], torch.nan)
    return FoldDirection(value=value.to(x.dtype.to_complex()), vector=unit.view_as(x))


def _compressed(
    branch: Branch, x: Tensor, steps: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compress J_g(x) to a Krylov space; see :func:`_krylov`."""
    branch.check_input(x)
    with evaluating(branch):
        return _krylov(lambda vector: push(branch, x, vector), x, steps, generator)


def _krylov(
    multiply: Callable[[Tensor], Tensor], x: Tensor, steps: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a basis, the matrices in it in double precision, zero where not finite, and which samples are finite."""
    hessenberg, basis = arnoldi(multiply, unit_vectors(x, generator), steps=steps)
    finite = hessenberg.isfinite().flatten(1).all(dim=1)
    return basis, torch.where(finite[:, None, None], hessenberg, 0).double(), finite
