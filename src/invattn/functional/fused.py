"""Softmax attention by fused kernels, without a matrix of scores in memory, and with every derivative.

Those kernels, torch's on a processor and Triton's on a GPU, give values and first gradients, and neither a forward nor
a second derivative. Here a first gradient is an autograd function of its own, whose derivatives are the tiles of
:mod:`invattn.functional.response_tiles`.

With A the row softmax of the swapped scores, keys against queries, column-normalised attention is A^T v. Its first
gradients are those of <v, A g>, for which the fused kernels serve again. Its value takes two passes: the log-sum-exp of
every column, then a row softmax of the logits minus it, times the sum of its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn.functional import streamed
from invattn.functional._transforms import in_front
from invattn.functional.dense import Response, positions
from invattn.functional.fused_primitives import Pair, Primitives, Triple, primitives_right
from invattn.functional.kernels import get_kernel
from invattn.functional.response_tiles import Form, ResponseTile, response_tile
from invattn.functional.triton_attention import TritonKernels

_VECTOR = 16
"""Numbers in a register of 512 bits, single precision."""

_ROWS_WORTH_FILLING = 512

_LARGE_SCORES = 50.0
"""From there on torch's kernels lose digits in float32 that the plain formula keeps: their weights are exponentials of
differences of rounded numbers as large as the scores, and what should cancel in a gradient is multiplied by keys."""


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

    def backward(self, incoming: Tensor, inputs: Triple, found: Pair, *, kernel: str, causal: bool) -> Triple:
        query, key, value = inputs
        if _loses_digits(query, key):
            g, q, k, v = (tensor.double() for tensor in (incoming, query, key, value))
            found = self.forward(q, k, v, kernel=kernel, causal=causal)
            by_query, by_key, by_value = self.backward(g, (q, k, v), found, kernel=kernel, causal=causal)
            return by_query.to(query.dtype), by_key.to(key.dtype), by_value.to(value.dtype)
        out, sizes = found
        g, q, k, v, o = _same_width(incoming, query, key, value, out)
        parts = 1 if causal else _parts(query)
        if parts == 1:
            gradients = _gradients(g, q, k, v, o, sizes[..., 0], causal)
        else:
            cut_g, cut_q, cut_o, cut_sizes = (_cut(tensor, parts) for tensor in (g, q, o, sizes))
            every_k, every_v = (tensor.repeat_interleave(parts, dim=1) for tensor in (k, v))
            by_q, by_k, by_v = (
                part.view(-1, query.shape[1], parts, *part.shape[2:])
                for part in _gradients(cut_g, cut_q, every_k, every_v, cut_o, cut_sizes[..., 0], causal)
            )
            gradients = by_q.flatten(2, 3)[..., : query.shape[-2], :], by_k.sum(dim=2), by_v.sum(dim=2)
        by_query, by_key, by_value = (
            part[..., : like.shape[-1]].contiguous() for part, like in zip(gradients, inputs, strict=True)
        )
        return by_query, by_key, by_value

    def column(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str) -> Pair:
        """Subtract the log-sum-exp of every column by one more coordinate of the keys."""
        if _loses_digits(query, key):
            found, weights = self.column(query.double(), key.double(), value.double(), kernel=kernel)
            return found.to(value.dtype), weights.to(value.dtype)
        _, sizes = self.forward(key, query, query[..., :1], kernel=kernel, causal=False)
        query = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)
        out, shares = self.forward(query, torch.cat([key, -sizes], dim=-1), value, kernel=kernel, causal=False)
        return out * shares.exp(), shares


def _loses_digits(query: Tensor, key: Tensor) -> bool:
    """Whether scores may be so large that float32 is not enough; unknown, hence no, while a graph is traced."""
    if query.dtype != torch.float32 or torch.compiler.is_compiling() or not (query.numel() and key.numel()):
        return False
    largest = query.detach().norm(dim=-1).max() * key.detach().norm(dim=-1).max()
    return bool(largest > _LARGE_SCORES)


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


PRIMITIVES: dict[str, Primitives] = {"cpu": Flash(), "cuda": TritonKernels()}
"""What there is for each type of device."""


def attend_fused(query: Tensor, key: Tensor, value: Tensor, response: Response, causal: bool = False) -> Tensor:
    """Return sum_j P_ij v_j for scores that are products; arguments as in :func:`invattn.functional.attend`.

    Args:
        query: Query factors with shape (B, H, N, d). Below float32 everything is computed in float32, and the result
            rounded.
        key: Key factors with shape (B, H, M, d).
        value: Values with shape (B, H, M, C).
        response: Row or column normalisation, and a kernel that the device has.
        causal: Query i sees keys 0 ... i; row normalisation and N = M only.
    """
    dtype = value.dtype
    query, key, value = (tensor.to(torch.promote_types(dtype, torch.float32)) for tensor in (query, key, value))
    if response.weight_sum != 1:
        value = value * response.weight_sum
    way = _Way(response.normalize, response.kernel.name, causal)
    out: Tensor = _Attend.apply(way, query, key, value)[0]  # type: ignore[no-untyped-call]
    return out.to(dtype)


@cache
def fused_kernels_work(device: str, kernel: str) -> bool:
    """Whether a type of device has the fused kernels for a kernel phi, with the arguments and results used here.

    Tried once, on a small example whose results are known: the one for processors is not part of torch's public
    interface, and the one for GPUs needs Triton and is compiled where it runs.
    """
    return device in PRIMITIVES and primitives_right(PRIMITIVES[device], kernel, device)


@dataclass(frozen=True)
class _Way:
    """What is computed.

    Attributes:
        side: What is normalised, row or column.
        kernel: Name of phi.
        causal: Query i sees keys 0 ... i.
    """

    side: str
    kernel: str
    causal: bool


class _Attend(torch.autograd.Function):
    """(q, k, v) to the output and, without gradient, the normaliser of each row of what came last."""

    @staticmethod
    def forward(way: _Way, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        primitives = PRIMITIVES[query.device.type]
        if way.side == "row":
            return primitives.forward(query, key, value, kernel=way.kernel, causal=way.causal)
        return primitives.column(query, key, value, kernel=way.kernel)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.way, *tensors = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor, _: Any) -> Any:
        found = _Gradient.apply(ctx.way, *ctx.saved_tensors, incoming)  # type: ignore[no-untyped-call]
        return None, *found

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, None]:
        tile, named = _tile(ctx.way, ctx.saved_tensors[:3])
        roles = _ROLES[ctx.way.side]
        along = {role: tangent for role, tangent in zip(roles, tangents, strict=False) if tangent is not None}
        return tile.push(named, along)[0], None

    @staticmethod
    def vmap(info: Any, in_dims: Any, way: _Way, *tensors: Tensor) -> Any:
        return _folded(_Attend, way, info.batch_size, in_dims[1:], tensors)


class _Gradient(torch.autograd.Function):
    """(q, k, v, output, normalisers, g) to the gradients of <g, output> by q, k and v.

    As a function it is one of q, k, v and g: output and normalisers only save work.
    """

    @staticmethod
    def forward(way: _Way, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, out, sizes, incoming = tensors
        primitives, kernel = PRIMITIVES[query.device.type], way.kernel
        if way.side == "row":
            return primitives.backward(incoming, (query, key, value), (out, sizes), kernel=kernel, causal=way.causal)
        turned = (key, query, incoming)
        found = primitives.forward(*turned, kernel=kernel, causal=False)
        by_key, by_query, _ = primitives.backward(value, turned, found, kernel=kernel, causal=False)
        return by_query, by_key, found[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.way, query, key, value, _, _, incoming = inputs
        ctx.save_for_backward(query, key, value, incoming)
        ctx.save_for_forward(query, key, value, incoming)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        tile, named = _tile(ctx.way, ctx.saved_tensors)
        roles = _ROLES[ctx.way.side]
        flags = (*ctx.needs_input_grad[1:4], ctx.needs_input_grad[6])
        wanted = [role for role, flag in zip(roles, flags, strict=True) if flag]
        found = tile.pull(named, dict(zip(roles, cotangents, strict=False)), wanted)
        by_query, by_key, by_value, by_incoming = (found.get(role) for role in roles)
        return None, by_query, by_key, by_value, None, None, by_incoming

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        tile, named = _tile(ctx.way, ctx.saved_tensors)
        roles = _ROLES[ctx.way.side]
        moving = (*tangents[1:4], tangents[6])
        along = {role: tangent for role, tangent in zip(roles, moving, strict=True) if tangent is not None}
        found = dict(zip(tile.partials, tile.push(named, along), strict=True))
        return tuple(found[role] for role in roles[:3])

    @staticmethod
    def vmap(info: Any, in_dims: Any, way: _Way, *tensors: Tensor) -> Any:
        return _folded(_Gradient, way, info.batch_size, in_dims[1:], tensors)


_ROLES = {"row": ("x", "y", "b", "a"), "column": ("y", "x", "a", "b")}
"""What query, key, value and cotangent are in Phi of :mod:`invattn.functional.response_tiles`."""


def _tile(way: _Way, tensors: Sequence[Tensor]) -> tuple[ResponseTile, dict[str, Tensor]]:
    """Return the tile of the output (three tensors: q, k, v) or of its first gradients (with g), and its inputs."""
    named = dict(zip(_ROLES[way.side], tensors, strict=False))
    if way.causal:
        named["row"], named["column"] = positions(named["x"]), positions(named["y"])
    names = tuple(name for name in ("x", "a", "row", "y", "b", "column") if name in named)
    output = "a" if way.side == "row" else "b"
    partials = (output,) if len(tensors) == 3 else tuple(name for name in "xayb" if name != output)
    rows = streamed.rows_of_a_tile(named["x"], named["y"])
    return response_tile(Form(get_kernel(way.kernel), additive=False), names, partials, rows=rows), named


def _folded(
    function: type[torch.autograd.Function],
    way: _Way,
    size: int,
    dims: Sequence[int | None],
    tensors: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Apply a function of batches whose arguments have one more axis, by folding it into the batch."""
    rows = [tensor.flatten(0, 1) for tensor in in_front(size, dims, tensors)]
    results = function.apply(way, *rows)  # type: ignore[no-untyped-call]
    return tuple(result.unflatten(0, (size, -1)) for result in results), tuple(0 for _ in results)
