"""Estimates of the largest eigenvalue and singular value of the Jacobian J_g(x), one a sample.

Where an eigenvalue of J_g has modulus above 1, the fixed-point inverse x <- z - g(x) moves away from x; where it is
real and below -1, another input may have the same image. Both are found by Krylov iterations on products J v and
J^T v; J itself, of N C rows, is never built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.diagnosis.local import evaluating, only_finite, push, unit_vectors
from invattn.functional import arnoldi


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
    branch.check_input(x)

    def multiply(vector: Tensor) -> Tensor:
        return push(branch, x, vector)

    with evaluating(branch):
        hessenberg = arnoldi(multiply, unit_vectors(x, generator), steps=steps).hessenberg
    square, finite = only_finite(hessenberg)
    values, vectors = torch.linalg.eig(square[:, :-1])
    best = values.abs().argmax(dim=-1, keepdim=True)
    value = values.gather(-1, best)[:, 0]
    last = vectors[:, -1].gather(-1, best)[:, 0].abs()
    residual = square[:, -1, -1].abs() * last
    real = x.dtype
    return DominantEigenvalue(
        value=torch.where(finite, value, torch.nan).to(real.to_complex()),
        residual=torch.where(finite, residual, torch.nan).to(real),
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

        hessenberg = arnoldi(multiply, unit_vectors(x, generator), steps=steps).hessenberg
    square, finite = only_finite(hessenberg)
    gram = square[:, :-1]
    largest = torch.linalg.eigvalsh((gram + gram.mT) / 2)[:, -1]
    return torch.where(finite, largest.clamp_min(0).sqrt(), torch.nan).to(x.dtype)
