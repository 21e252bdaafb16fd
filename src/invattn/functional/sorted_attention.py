"""The concatenation kind in O(N log N): its scores are sums of two scalars, its kernels have two pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invattn.functional._transforms import in_front, outer_tangents, own_primal
from invattn.functional.dense import Response

_CHUNK_ENTRIES = 2**17  # of a prefix sum that is worked on at a time: 512 KB in float32


@dataclass(frozen=True)
class PieceKernel:
    """A kernel of two pieces: e^s or 0 for s <= 0, and s + offset for s > 0.

    Attributes:
        exponential: e^s below 0, not 0.
        offset: What is added above 0.
    """

    exponential: bool
    offset: float


PIECE_KERNELS = {"elu+1": PieceKernel(exponential=True, offset=1.0), "relu": PieceKernel(exponential=False, offset=0.0)}
"""The kernels of two pieces, by name."""


def kernel_sums(kernel: PieceKernel, orders: Sequence[int], a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Return sum_j phi^(n)(a_i + b_j) w_j for some orders n of derivative.

    A score of exactly 0 counts as negative: phi'' is 1 there for elu+1, and phi' is 0 for relu.

    Args:
        kernel: phi.
        orders: n, each at least 0.
        a: Scalars with shape (..., N).
        b: Scalars with shape (..., M).
        weight: w with shape (..., M, K); the leading axes of all three are equal.

    Returns:
        One tensor an order, with shape (..., N, K). Autograd and torch.func differentiate them any number of times.
    """
    results: tuple[Tensor, ...] = _KernelSums.apply(kernel, tuple(orders), a, b, weight)  # type: ignore[no-untyped-call]
    return results


class _KernelSums(torch.autograd.Function):
    """(a, b, w) to the sums; see :func:`kernel_sums`."""

    @staticmethod
    def forward(
        kernel: PieceKernel, orders: tuple[int, ...], a: Tensor, b: Tensor, weight: Tensor
    ) -> tuple[Tensor, ...]:
        lead = a.shape[:-1]
        flat = (a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), weight.reshape(-1, *weight.shape[-2:]))
        return tuple(found.view(*lead, *found.shape[1:]) for found in _sums(kernel, orders, *flat))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kernel, ctx.orders, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        a, b, weight = ctx.saved_tensors
        _, _, by_a, by_b, by_weight = ctx.needs_input_grad
        found: list[Tensor | None] = [None, None, None]
        steps = tuple(order + 1 for order in ctx.orders)
        if by_a:
            sums = kernel_sums(ctx.kernel, steps, a, b, weight)
            found[0] = _total((g * s).sum(dim=-1) for g, s in zip(incoming, sums, strict=True))
        if by_b or by_weight:
            for order, cotangent in zip(ctx.orders, incoming, strict=True):
                wanted = (order,) * by_weight + (order + 1,) * by_b
                sums = kernel_sums(ctx.kernel, wanted, b, a, cotangent)
                if by_weight:
                    found[2] = sums[0] if found[2] is None else found[2] + sums[0]
                if by_b:
                    part = (weight * sums[-1]).sum(dim=-1)
                    found[1] = part if found[1] is None else found[1] + part
        return None, None, *found

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, da: Tensor | None, db: Tensor | None, dw: Tensor | None) -> Any:
        steps = tuple(order + 1 for order in ctx.orders)
        parts: list[Sequence[Tensor]] = []
        with outer_tangents():
            a, b, weight = (own_primal(tensor) for tensor in ctx.saved_tensors)
            if da is not None:
                parts.append([da[..., None] * s for s in kernel_sums(ctx.kernel, steps, a, b, weight)])
            if db is not None:
                parts.append(kernel_sums(ctx.kernel, steps, a, b, weight * db[..., None]))
            if dw is not None:
                parts.append(kernel_sums(ctx.kernel, ctx.orders, a, b, dw))
            return tuple(_total(part[i] for part in parts) for i in range(len(steps)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, kernel: PieceKernel, orders: tuple[int, ...], *tensors: Tensor) -> Any:
        moved = in_front(info.batch_size, in_dims[2:], tensors)
        return kernel_sums(kernel, orders, *moved), tuple(0 for _ in orders)


def _sums(kernel: PieceKernel, orders: Sequence[int], a: Tensor, b: Tensor, weight: Tensor) -> list[Tensor]:
    """Compute the sums for (B, N), (B, M) and (B, M, K)."""
    ascending, order = b.sort(dim=-1)
    weight = _rows(weight, order)
    # b_0 ... b_{count - 1} are those with a_i + b_j <= 0.
    count = torch.searchsorted(ascending, -a, right=True)
    last = b.shape[-1] - 1
    results: dict[int, Tensor] = {}
    if kernel.exponential:
        decayed = torch.cat([torch.zeros_like(weight[:, :1]), _decayed_sums(ascending, weight)], dim=1)
        exponent = a + ascending.gather(-1, (count - 1).clamp_min(0))
        below = exponent.clamp_max(0).exp()[..., None] * _rows(decayed, count)
        results = dict.fromkeys(orders, below)
    if any(order <= 1 for order in orders):
        suffix = weight.flip(1).cumsum(dim=1).flip(1)
        suffix = torch.cat([suffix, torch.zeros_like(suffix[:, :1])], dim=1)
        above = _rows(suffix, count)
        for n in orders:
            if n == 1:
                results[1] = results[1] + above if 1 in results else above
            if n == 0:
                height = a + ascending.gather(-1, count.clamp_max(last)) + kernel.offset
                linear = torch.addcmul(_rows(_growth(ascending, suffix), count), height[..., None], above)
                results[0] = results[0] + linear if 0 in results else linear
    nothing = a.new_zeros(*a.shape, weight.shape[-1])
    return [results[n].clone() if n in results else nothing.clone() for n in orders]


def _decayed_sums(ascending: Tensor, weight: Tensor) -> Tensor:
    """Return R_k = sum_{j <= k} exp(b_j - b_k) w_j, shape (B, M, K), by doubling in chunks.

    No exponent is positive, so that nothing overflows.
    """
    batch, length, width = weight.shape
    size = max(64, _CHUNK_ENTRIES // max(1, batch * width))
    result = torch.empty_like(weight)
    for start in range(0, length, size):
        stop = min(start + size, length)
        b = ascending[:, start:stop]
        part = weight[:, start:stop].clone()
        offset = 1
        while offset < stop - start:
            decay = (b[:, :-offset] - b[:, offset:]).exp_()
            part[:, offset:] += decay[..., None] * part[:, :-offset]
            offset *= 2
        if start:
            part += (ascending[:, start - 1 : start] - b).exp_()[..., None] * result[:, start - 1 : start]
        result[:, start:stop] = part
    return result


def _growth(ascending: Tensor, suffix: Tensor) -> Tensor:
    """Return T_k = sum_{j >= k} (b_j - b_k) w_j = sum_{m > k} (b_m - b_{m-1}) suffix_m, shape (B, M + 1, K)."""
    steps = (ascending[:, 1:] - ascending[:, :-1])[..., None] * suffix[:, 1:-1]
    result = torch.zeros_like(suffix)
    result[:, :-2] = steps.flip(1).cumsum(dim=1).flip(1)
    return result


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    """Return tensor[b, index[b, i]] for a tensor (B, M, K) and an index (B, N)."""
    batch, length, width = tensor.shape
    start = torch.arange(batch, device=index.device)[:, None] * length
    return tensor.reshape(-1, width).index_select(0, (index + start).flatten()).view(batch, -1, width)


def _total(parts: Any) -> Tensor:
    whole: Tensor | None = None
    for part in parts:
        whole = part if whole is None else whole + part
    assert whole is not None
    return whole


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
