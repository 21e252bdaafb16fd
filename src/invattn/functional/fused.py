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

from invattn.functional import streamed
from invattn.functional.flash import Flash
from invattn.functional.fused_primitives import Primitives, primitives_right
from invattn.functional.kernels import get_kernel
from invattn.functional.response_tiles import Form, ResponseTile, response_tile
from invattn.functional.responses import Response
from invattn.functional.triton_attention import TritonKernels

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
            return primitives.backward(incoming, query, key, value, out, sizes, kernel=kernel, causal=way.causal)
        by_value, sizes = primitives.forward(key, query, incoming, kernel=kernel, causal=False)
        by_key, by_query, _ = primitives.backward(
            value, key, query, incoming, by_value, sizes, kernel=kernel, causal=False
        )
        return by_query, by_key, by_value

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
        named["row"] = torch.arange(named["x"].shape[-2], device=named["x"].device)[:, None]
        named["column"] = torch.arange(named["y"].shape[-2], device=named["y"].device)[:, None]
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
    rows = [
        (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]
    results = function.apply(way, *rows)  # type: ignore[no-untyped-call]
    return tuple(result.unflatten(0, (size, -1)) for result in results), tuple(0 for _ in results)
