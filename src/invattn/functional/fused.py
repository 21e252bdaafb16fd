"""Softmax attention by the fused kernels of scaled_dot_product_attention, with every derivative.

Those kernels give values and first gradients, and neither a forward nor a second derivative. Here a first gradient is
an autograd function of its own, whose derivatives are the tiles of :mod:`invattn.functional.response_tiles`.

With A the row softmax of the swapped scores, keys against queries, column-normalised attention is A^T v. Its first
gradients are those of <v, A g>, for which the fused kernels serve again. Its value takes two passes: the log-sum-exp of
every column, then a row softmax of the scores minus it, times the sum of its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn.functional import streamed
from invattn.functional.kernels import get_kernel
from invattn.functional.response_tiles import Form, ResponseTile, response_tile
from invattn.functional.responses import Response


def attend_fused(query: Tensor, key: Tensor, value: Tensor, response: Response, causal: bool = False) -> Tensor:
    """Return sum_j P_ij v_j for the kernel exp of products; arguments as in :func:`invattn.functional.attend`.

    Args:
        query: Query factors with shape (B, H, N, d).
        key: Key factors with shape (B, H, M, d).
        value: Values with shape (B, H, M, C).
        response: Row or column normalisation.
        causal: Query i sees keys 0 ... i; row normalisation and N = M only.
    """
    if response.weight_sum != 1:
        value = value * response.weight_sum
    out: Tensor = _Attend.apply(response.normalize, causal, query, key, value)[0]  # type: ignore[no-untyped-call]
    return out


@cache
def fused_kernels_work() -> bool:
    """Whether this build of torch has the fused kernels for processors, with the arguments and results used here.

    They are not part of its public interface. Tried once, on a small example whose result is known.
    """
    query = torch.tensor([[0.5, -1.0], [1.0, 0.25], [0.0, 2.0]], dtype=torch.float64)[None, None]
    weights = (query @ query.mT).softmax(dim=-1)
    # <g, P v> with g = v = 1 is constant: its gradient by the queries is zero, and that by the values sums each column.
    ones = torch.ones_like(query)
    try:
        out, sizes = _forward(query, query, query, causal=False)
        by_query, _, by_value = _backward(ones, query, query, ones, ones, sizes, causal=False)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    pairs = (
        (out, weights @ query),
        (sizes, (query @ query.mT).logsumexp(dim=-1)),
        (by_query, torch.zeros_like(query)),
        (by_value, weights.mT @ ones),
    )
    return all(one.shape == other.shape and torch.allclose(one, other) for one, other in pairs)


class _Attend(torch.autograd.Function):
    """(q, k, v) to the output and, without gradient, the log-sum-exp of each row of what came last."""

    @staticmethod
    def forward(side: str, causal: bool, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if side == "row":
            return _forward(query, key, value, causal=causal)
        return _column(query, key, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.side, ctx.causal, *tensors = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor, _: Any) -> Any:
        found = _Gradient.apply(ctx.side, ctx.causal, *ctx.saved_tensors, incoming)  # type: ignore[no-untyped-call]
        return None, None, *found

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: Tensor | None) -> tuple[Tensor, None]:
        tile, named = _tile(ctx.side, ctx.saved_tensors[:3], causal=ctx.causal)
        roles = _ROLES[ctx.side]
        along = {role: tangent for role, tangent in zip(roles, tangents, strict=False) if tangent is not None}
        return tile.push(named, along)[0], None

    @staticmethod
    def vmap(info: Any, in_dims: Any, side: str, causal: bool, *tensors: Tensor) -> Any:
        return _folded(_Attend, (side, causal), info.batch_size, in_dims[2:], tensors)


class _Gradient(torch.autograd.Function):
    """(q, k, v, output, log-sum-exp, g) to the gradients of <g, output> by q, k and v.

    As a function it is one of q, k, v and g: output and log-sum-exp only save work.
    """

    @staticmethod
    def forward(side: str, causal: bool, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, out, sizes, incoming = tensors
        if side == "row":
            return _backward(incoming, query, key, value, out, sizes, causal=causal)
        by_value, sizes = _forward(key, query, incoming, causal=False)
        by_key, by_query, _ = _backward(value, key, query, incoming, by_value, sizes, causal=False)
        return by_query, by_key, by_value

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.side, ctx.causal, query, key, value, _, _, incoming = inputs
        ctx.save_for_backward(query, key, value, incoming)
        ctx.save_for_forward(query, key, value, incoming)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        tile, named = _tile(ctx.side, ctx.saved_tensors, causal=ctx.causal)
        roles = _ROLES[ctx.side]
        flags = (*ctx.needs_input_grad[2:5], ctx.needs_input_grad[7])
        wanted = [role for role, flag in zip(roles, flags, strict=True) if flag]
        found = tile.pull(named, dict(zip(roles, cotangents, strict=False)), wanted)
        by_query, by_key, by_value, by_incoming = (found.get(role) for role in roles)
        return None, None, by_query, by_key, by_value, None, None, by_incoming

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        tile, named = _tile(ctx.side, ctx.saved_tensors, causal=ctx.causal)
        roles = _ROLES[ctx.side]
        moving = (*tangents[2:5], tangents[7])
        along = {role: tangent for role, tangent in zip(roles, moving, strict=True) if tangent is not None}
        found = dict(zip(tile.partials, tile.push(named, along), strict=True))
        return tuple(found[role] for role in roles[:3])

    @staticmethod
    def vmap(info: Any, in_dims: Any, side: str, causal: bool, *tensors: Tensor) -> Any:
        return _folded(_Gradient, (side, causal), info.batch_size, in_dims[2:], tensors)


_VECTOR = 16
"""Numbers in a register of 512 bits, single precision."""

_ROWS_WORTH_FILLING = 512

_ROLES = {"row": ("x", "y", "b", "a"), "column": ("y", "x", "a", "b")}
"""What query, key, value and cotangent are in Phi of :mod:`invattn.functional.response_tiles`."""


def _tile(side: str, tensors: Sequence[Tensor], *, causal: bool) -> tuple[ResponseTile, dict[str, Tensor]]:
    """Return the tile of the output (three tensors: q, k, v) or of its first gradients (with g), and its inputs."""
    named = dict(zip(_ROLES[side], tensors, strict=False))
    if causal:
        named["row"] = torch.arange(named["x"].shape[-2], device=named["x"].device)[:, None]
        named["column"] = torch.arange(named["y"].shape[-2], device=named["y"].device)[:, None]
    names = tuple(name for name in ("x", "a", "row", "y", "b", "column") if name in named)
    output = "a" if side == "row" else "b"
    partials = (output,) if len(tensors) == 3 else tuple(name for name in "xayb" if name != output)
    rows = streamed.rows_of_a_tile(named["x"], named["y"])
    return response_tile(Form(get_kernel("exp"), additive=False), names, partials, rows=rows), named


def _forward(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Return the output and the log-sum-exp of each row of scores."""
    width = value.shape[-1]
    q, k, v = _same_width(query, key, value)
    out, sizes = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=1.0)
    return out[..., :width].contiguous(), sizes


def _backward(
    incoming: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, sizes: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients by query, key and value."""
    g, q, k, v, o = _same_width(incoming, query, key, value, out)
    found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        g, q, k, v, o, sizes, 0.0, causal, scale=1.0
    )
    by_query, by_key, by_value = (
        part[..., : like.shape[-1]].contiguous() for part, like in zip(found, (query, key, value), strict=True)
    )
    return by_query, by_key, by_value


def _column(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return column-normalised attention and the logarithm of the weights that each query gets in all."""
    _, sizes = _forward(key, query, query[..., :1], causal=False)
    query = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)
    out, shares = _forward(query, torch.cat([key, -sizes[..., None]], dim=-1), value, causal=False)
    return out * shares.exp()[..., None], shares


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


def _folded(
    function: type[torch.autograd.Function],
    options: tuple[str, bool],
    size: int,
    dims: Sequence[int | None],
    tensors: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Apply a function of batches whose arguments have one more axis, by folding it into the batch."""
    rows = [
        (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]
    results = function.apply(*options, *rows)  # type: ignore[no-untyped-call]
    return tuple(result.unflatten(0, (size, -1)) for result in results), tuple(0 for _ in results)
