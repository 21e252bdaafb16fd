"""Spectral norms: exact, bounded from above, and estimated from below."""

from __future__ import annotations

import torch
from torch import Tensor

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
