"""Krylov spaces of batches of linear maps, one Hessenberg matrix a sample."""

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
