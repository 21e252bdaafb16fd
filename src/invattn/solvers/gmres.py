"""GMRES for batches of linear equations, each sample with its own matrix, Krylov space and tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from invattn.functional.spectral import orthogonalise


class Gmres(NamedTuple):
    """What GMRES found.

    Attributes:
        solution: y with shape (B, D).
        residual: |b - A y|_2 as the last cycle knows it, shape (B,); not finite where a product was not.
        products: Products A v a sample, shape (B,), int.
    """

    solution: Tensor
    residual: Tensor
    products: Tensor


def gmres(
    multiply: Callable[[Tensor, Tensor], Tensor], right: Tensor, *, limit: Tensor, krylov: int = 30, restarts: int = 3
) -> Gmres:
    """Solve A y = b for every sample, from y = 0; samples that are done take part in no further product.

    Args:
        multiply: Called with vectors of shape (A, D) and the numbers of their samples, shape (A,); returns A v.
        right: b with shape (B, D).
        limit: What |b - A y|_2 has to reach, shape (B,).
        krylov: The largest dimension of a Krylov space.
        restarts: How often a sample that is not done begins another space at its residual.

    Returns:
        The solutions; the residual of a sample is never above |b|_2.

    References:
        Saad and Schultz 1986.
    """
    result = Gmres(torch.zeros_like(right), right.norm(dim=-1), torch.zeros_like(limit, dtype=torch.long))
    defect = right
    for cycle in range(restarts + 1):
        rows = torch.nonzero(result.residual > limit)[:, 0]
        if rows.numel() == 0:
            break
        if cycle > 0:
            defect = right.clone()
            defect[rows] -= multiply(result.solution[rows], rows)
            result.products[rows] += 1
        _cycle(multiply, defect, rows, limit, krylov, result)
    return result


def _cycle(
    multiply: Callable[[Tensor, Tensor], Tensor],
    defect: Tensor,
    rows: Tensor,
    limit: Tensor,
    krylov: int,
    result: Gmres,
) -> None:
    """Build one Krylov space for each of the rows, and add its best correction to their results."""
    start = defect[rows]
    length = start.norm(dim=-1)
    steps = min(krylov, start.shape[-1])
    basis = start.new_zeros(rows.numel(), steps + 1, start.shape[-1])
    basis[:, 0] = start / torch.where(length > 0, length, 1)[:, None]
    hessenberg = start.new_zeros(rows.numel(), steps + 1, steps, dtype=torch.float64)
    best, weights = length.double(), hessenberg[:, 0].clone()
    for k in range(steps):
        product = multiply(basis[:, k], rows)
        result.products[rows] += 1
        column, basis[:, k + 1] = orthogonalise(basis[:, : k + 1], product)
        hessenberg[:, : k + 2, k] = column.double()
        found, residual = _least_squares(hessenberg[:, : k + 2, : k + 1], length)
        # Where H is nearly singular rounding can make a larger space worse.
        better = residual < best
        best = torch.where(better | residual.isnan(), residual, best)
        weights[:, : k + 1] = torch.where(better[:, None], found, weights[:, : k + 1])
        exhausted = ~(column[:, -1] > 0)  # an invariant space, or not finite
        ended = (best <= limit[rows]) | exhausted | (k == steps - 1)
        if not bool(ended.any()):
            continue
        done, left = rows[ended], ~ended
        result.solution[done] += (weights[ended, None].to(basis.dtype) @ basis[ended, :steps])[:, 0]
        result.residual[done] = best[ended].to(result.residual.dtype)
        rows, length, basis, hessenberg = rows[left], length[left], basis[left], hessenberg[left]
        best, weights = best[left], weights[left]
        if rows.numel() == 0:
            return


def _least_squares(hessenberg: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise |length e_1 - H y|_2; return y with shape (A, k) and the minimum with shape (A,), NaN where H is."""
    finite = hessenberg.isfinite().flatten(1).all(dim=-1)
    unitary, triangle = torch.linalg.qr(torch.where(finite[:, None, None], hessenberg, 0), mode="complete")
    target = length.double()[:, None] * unitary[:, 0]
    square = triangle[:, :-1]
    diagonal = square.diagonal(dim1=-2, dim2=-1)
    # A direction that A maps to nothing new gets no weight.
    lost = diagonal.abs() <= 1e-14 * square.abs().amax(dim=(-2, -1))[:, None]
    reached = torch.where(lost, 0, target[:, :-1])
    weights = torch.linalg.solve_triangular(
        square + torch.diag_embed(torch.where(lost, 1 - diagonal, 0)), reached[..., None], upper=True
    )[..., 0]
    first = torch.zeros_like(hessenberg[0, :, 0])
    first[0] = 1
    residual = (length.double()[:, None] * first - (hessenberg @ weights[..., None])[..., 0]).norm(dim=-1)
    return weights, torch.where(finite, residual, torch.nan)
