"""Fused attention on processors, by the kernels of torch's scaled_dot_product_attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn.functional.fused_primitives import Pair, Primitives, Triple

_VECTOR = 16
"""Numbers in a register of 512 bits, single precision."""

_ROWS_WORTH_FILLING = 512


class Flash(Primitives):
    """The kernels of scaled_dot_product_attention for processors. They are not part of torch's public interface."""

    kernels = ("exp",)

    def obstacle(self, itemsize: int, width: int) -> str | None:
        return None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str, causal: bool) -> Pair:
        width = value.shape[-1]
        q, k, v = _same_width(query, key, value)
        out, sizes = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=1.0)
        return out[..., :width].contiguous(), sizes[..., None]

    def backward(
        self,
        incoming: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        sizes: Tensor,
        *,
        kernel: str,
        causal: bool,
    ) -> Triple:
        g, q, k, v, o = _same_width(incoming, query, key, value, out)
        parts = 1 if causal else _parts(query)
        if parts == 1:
            found = _gradients(g, q, k, v, o, sizes[..., 0], causal)
        else:
            cut_g, cut_q, cut_o, cut_sizes = (_cut(tensor, parts) for tensor in (g, q, o, sizes))
            every_k, every_v = (tensor.repeat_interleave(parts, dim=1) for tensor in (k, v))
            by_q, by_k, by_v = (
                part.view(-1, query.shape[1], parts, *part.shape[2:])
                for part in _gradients(cut_g, cut_q, every_k, every_v, cut_o, cut_sizes[..., 0], causal)
            )
            found = by_q.flatten(2, 3)[..., : query.shape[-2], :], by_k.sum(dim=2), by_v.sum(dim=2)
        by_query, by_key, by_value = (
            part[..., : like.shape[-1]].contiguous() for part, like in zip(found, (query, key, value), strict=True)
        )
        return by_query, by_key, by_value

    def column(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str) -> Pair:
        """Subtract the log-sum-exp of every column by one more coordinate of the keys."""
        _, sizes = self.forward(key, query, query[..., :1], kernel=kernel, causal=False)
        query = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)
        out, shares = self.forward(query, torch.cat([key, -sizes], dim=-1), value, kernel=kernel, causal=False)
        return out * shares.exp(), shares


def _gradients(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        g, q, k, v, out, log_sums, 0.0, causal, scale=1.0
    )
    return found


def _parts(query: Tensor) -> int:
    """Return into how many parts the queries are cut for first gradients.

    Torch gives each map to one thread there. Where there are fewer maps than threads, every part is a map of its own.
    """
    wanted = torch.get_num_threads() // max(1, query.shape[0] * query.shape[1])
    return max(1, min(wanted, query.shape[-2] // _ROWS_WORTH_FILLING))


def _cut(tensor: Tensor, parts: int) -> Tensor:
    """Turn (B, H, N, m) into (B, H parts, N / parts, m), with rows of zeros at the end where N is no multiple.

    Rows without a gradient of the output add nothing to any other.
    """
    rows = -(-tensor.shape[-2] // parts)
    whole = F.pad(tensor, (0, 0, 0, rows * parts - tensor.shape[-2]))
    return whole.reshape(tensor.shape[0], tensor.shape[1] * parts, rows, tensor.shape[-1])


def _same_width(*tensors: Tensor) -> list[Tensor]:
    """Return tensors as the fused kernels take them: equally wide, the last axis contiguous."""
    width = _quick_width(max(tensor.shape[-1] for tensor in tensors), rows=tensors[0].shape[-2])
    return [
        (F.pad(tensor, (0, width - tensor.shape[-1])) if tensor.shape[-1] < width else tensor).contiguous()
        for tensor in tensors
    ]


def _quick_width(width: int, *, rows: int) -> int:
    """Return the width to which zeros are added: the next multiple of 16 where that is quicker.

    Measured for 3 to 64 channels: products of matrices with fewer than 16 columns take longer than those with 16; above
    that a gap of at most 4 is worth filling. For few rows the copies cost more than is gained.
    """
    full = -(-width // _VECTOR) * _VECTOR
    return full if rows >= _ROWS_WORTH_FILLING and (width < _VECTOR or full - width <= _VECTOR // 4) else width
