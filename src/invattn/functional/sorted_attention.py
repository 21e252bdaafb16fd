"""The concatenation kind in O(N log N): its scores are sums of two scalars, its kernels have two pieces."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.functional.kernel_sums import PIECE_KERNELS, PieceKernel, kernel_sums
from invattn.functional.responses import Response


def attend_sorted(query: Tensor, key: Tensor, value: Tensor, response: Response) -> Tensor:
    """Return sum_j P_ij v_j for additive scores and the kernels of :data:`PIECE_KERNELS`.

    Args:
        query: a with shape (B, H, N, 1).
        key: b with shape (B, H, M, 1).
        value: Values with shape (B, H, M, C).
        response: Kernel and normalisation: row, column or total.

    Returns:
        A tensor with shape (B, H, N, C); zeros where relu leaves nothing to share out.
    """
    kernel = PIECE_KERNELS[response.kernel.name]
    a, b = _guarded(query[..., 0], key[..., 0], response.normalize, kernel)
    ones = torch.ones_like(value[..., :1])
    if response.weight_sum != 1:
        value = value * response.weight_sum
    if response.normalize == "column":
        size = _sum(kernel, b, a, torch.ones_like(query))
        return _sum(kernel, a, b, value / _or_one(size))
    found = _sum(kernel, a, b, torch.cat([value, ones], dim=-1))
    out, size = found[..., :-1], found[..., -1:]
    return out / _or_one(size if response.normalize == "row" else size.sum(dim=-2, keepdim=True))


def _sum(kernel: PieceKernel, a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return kernel_sums(kernel, (0,), a, b, weight)[0]


def _guarded(a: Tensor, b: Tensor, normalize: str, kernel: PieceKernel) -> tuple[Tensor, Tensor]:
    """Lift scores that are all negative, in what is normalised together, until the largest is 0.

    There the kernel is an exponential, and what is added to all scores cancels: nothing changes but that no sum
    underflows. Derivatives are right as well: those by what was lifted are zero.
    """
    if not kernel.exponential:
        return a, b
    top_a, top_b = a.detach().amax(dim=-1, keepdim=True), b.detach().amax(dim=-1, keepdim=True)
    if normalize == "row":
        return torch.where(a > -top_b, a, -top_b), b
    if normalize == "column":
        return a, torch.where(b > -top_a, b, -top_a)
    return a - (top_a + top_b).clamp_max(0), b


def _or_one(size: Tensor) -> Tensor:
    return torch.where(size == 0, torch.ones_like(size), size)
