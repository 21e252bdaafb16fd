"""Spectral norms: exact, bounded from above, and estimated from below."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class KrylovSpace(NamedTuple):
    """Linear maps A compressed to the spaces of v, A v, A^2 v, ...

    Attributes:
        hessenberg: The matrices of A from the first m to all m + 1 orthonormal vectors, shape (B, m + 1, m).
        basis: Those vectors, or zeros where the space is exhausted, shape (B, m + 1, D).
    """

    hessenberg: Tensor
    basis: Tensor


def arnoldi(multiply: Callable[[Tensor], Tensor], start: Tensor, *, steps: int) -> KrylovSpace:
    """Orthonormalise v, A v, A^2 v, ... for a batch of linear maps A.

    Args:
        multiply: v to A v for vectors with shape (B, D), each sample with its own A.
        start: Unit vectors with shape (B, D).
        steps: The wanted m, at least 1; no more than D are taken.

    Returns:
        The compressed maps and the vectors.

    Raises:
        ValueError: If steps is below 1.

    References:
        Saad 2011, Numerical Methods for Large Eigenvalue Problems, Algorithm 6.2.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}.")
    batch, size = start.shape
    count = min(steps, size)
    basis = start.new_zeros(batch, count + 1, size)
    basis[:, 0] = start
    hessenberg = start.new_zeros(batch, count + 1, count)
    for k in range(count):
        column, basis[:, k + 1] = orthogonalise(basis[:, : k + 1], multiply(basis[:, k]))
        hessenberg[:, : k + 2, k] = column
    return KrylovSpace(hessenberg, basis)


def orthogonalise(basis: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Split vectors into their part in a space and what is new.

    Args:
        basis: Orthonormal vectors, or zeros, with shape (B, k, D).
        vector: Vectors with shape (B, D).

    Returns:
        The coefficients with shape (B, k + 1), the last one the length of the new part, and its unit vector with
        shape (B, D). Where only rounding is left, both the length and the unit vector are zero.
    """
    scale = vector.norm(dim=-1)
    coefficients = torch.zeros_like(basis[..., 0])
    for _ in range(2):  # the second pass removes what rounding left of the first
        part = (basis @ vector[..., None])[..., 0]
        vector = vector - (basis.mT @ part[..., None])[..., 0]
        coefficients = coefficients + part
    length = vector.norm(dim=-1)
    new = length > 10 * torch.finfo(vector.dtype).eps * vector.shape[-1] ** 0.5 * scale
    # NaN is passed on as NaN: a map that is not finite must not look like an invariant space.
    length = torch.where(new | length.isnan(), length, 0)
    unit = torch.where(new[:, None], vector / torch.where(new, length, 1)[:, None], 0)
    return torch.cat([coefficients, length[:, None]], dim=-1), unit


_SVD_SIZE = 64  # up to this smaller side an SVD is cheap
_GRAM_STEPS = 9  # ratio to the truth at most m^(2^-(steps+2)): 1.0031 at m = 512


def spectral_norm(matrix: Tensor) -> Tensor:
    """Return an upper bound of the largest singular value, in float64 and without state.

    Exact (SVD) up to a smaller side of 64, Gram iteration above: sigma_max(W)^2 <= |(W W^T)^(2^t)|_F^(2^-t).
    Differentiable in both cases.

    Args:
        matrix: Matrices with shape (..., m, n).

    Returns:
        A float64 tensor with shape (...).

    References:
        Delattre et al. 2023 (Gram iteration).
    """
    wide = matrix.double()
    if min(matrix.shape[-2:]) <= _SVD_SIZE:
        exact: Tensor = torch.linalg.matrix_norm(wide, ord=2)
        return exact
    return gram_norm(wide, steps=_GRAM_STEPS)


def gram_norm(matrix: Tensor, *, steps: int) -> Tensor:
    """Bound the largest singular value from above by Gram iteration.

    Args:
        matrix: Matrices with shape (..., m, n), real or complex.
        steps: The number of squarings t; the ratio to the truth is at most min(m, n)^(2^-(t+2)).

    Returns:
        A real tensor with shape (...) and the matrix's precision.
    """
    gram = matrix @ matrix.mH if matrix.shape[-2] <= matrix.shape[-1] else matrix.mH @ matrix
    bound: Tensor = (log_top_eigenvalue(gram, steps=steps) / 2).exp()
    return bound


def log_top_eigenvalue(gram: Tensor, *, steps: int) -> Tensor:
    """Bound log lambda_max of positive semidefinite Hermitian matrices from above: log |G^(2^t)|_F / 2^t.

    Args:
        gram: G with shape (..., m, m), real or complex.
        steps: The number of squarings t; exp of the bound is at most m^(2^-(t+1)) times the truth.

    Returns:
        A real tensor with shape (...); very negative for a matrix of zeros.
    """
    tiny = torch.finfo(gram.dtype).tiny
    log_scale = gram.real.new_zeros(gram.shape[:-2])
    for _ in range(steps):
        size = torch.linalg.matrix_norm(gram).clamp_min(tiny)
        gram = gram / size[..., None, None]
        gram = gram @ gram
        log_scale = 2 * (log_scale + size.log())
    size = torch.linalg.matrix_norm(gram).clamp_min(tiny)
    bound: Tensor = (log_scale + size.log()) / 2**steps
    return bound


def power_iteration(matrix: Tensor, left: Tensor, right: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    """Refine estimates of the leading singular vectors.

    Args:
        matrix: A matrix with shape (m, n).
        left: The current left vector, shape (m,).
        right: The current right vector, shape (n,).
        steps: The number of iterations; 0 returns the vectors as they are.

    Returns:
        The unit vectors (left, right). left . W right is an estimate from BELOW, never a bound.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    for _ in range(steps):
        right = torch.mv(matrix.mT, left)
        right = right / right.norm().clamp_min(tiny)
        left = torch.mv(matrix, right)
        left = left / left.norm().clamp_min(tiny)
    return left, right
