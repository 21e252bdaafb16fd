"""A computation over tiles that stays one under every derivative: memory O(rows of a tile), at any order.

A tile function maps *blocked* inputs, cut along the last axis but one, and *shared* inputs, seen whole, to *kept*
results, which are concatenated along that axis, and *summed* results, which are added up over the tiles. Such
computations are closed under differentiation: the cotangent of a kept result is one more blocked input, the gradient of
a shared input one more summed result. So one autograd function serves for all orders: its backward and its forward
derivative apply the same function to the derived tile. Nothing but inputs and cotangents is ever saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TileFunction = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Tile:
    """What is computed of one tile.

    Attributes:
        function: From blocked and then shared inputs to kept and then summed results, without memory of other tiles.
        blocked: How many of the inputs are blocked; at least one.
        kept: How many of the results are kept.
        rows: How many rows are taken at a time.
    """

    function: TileFunction
    blocked: int
    kept: int
    rows: int

    def pulled(self, needed: Sequence[bool]) -> Tile:
        """Return the tile of the gradients by the needed inputs.

        Its inputs are these with the cotangents of the results: blocked, of the kept ones, shared, of the summed ones.
        """
        chosen = [i for i, flag in enumerate(needed) if flag]
        count = len(needed)

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            inputs, cotangents = self.part(tensors, count)
            moving = _restricted(self.function, inputs, chosen)
            _, back = torch.func.vjp(moving, *(inputs[i] for i in chosen))  # type: ignore[misc]
            gradients: tuple[Tensor, ...] = back(tuple(cotangents))
            return gradients

        kept = sum(i < self.blocked for i in chosen)
        return Tile(function, blocked=self.blocked + self.kept, kept=kept, rows=self.rows)

    def pushed(self, given: Sequence[bool]) -> Tile:
        """Return the tile of the derivative along tangents of the given inputs.

        Its inputs are these and the tangents, both with the blocked ones before the shared ones.
        """
        chosen = [i for i, flag in enumerate(given) if flag]
        count = len(given)

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            inputs, tangents = self.part(tensors, count, sum(i < self.blocked for i in chosen))
            moving = _restricted(self.function, inputs, chosen)
            return _push(moving, [inputs[i] for i in chosen], tangents)

        blocked = self.blocked + sum(i < self.blocked for i in chosen)
        return Tile(function, blocked=blocked, kept=self.kept, rows=self.rows)

    def mapped(self, dims: tuple[int | None, ...], size: int) -> Tile:
        """Return the tile of torch.func.vmap; inputs and results have the mapped axis in front, where they have it."""
        function = torch.func.vmap(self.function, in_dims=dims)
        return Tile(function, blocked=self.blocked, kept=self.kept, rows=max(1, self.rows // size))

    def part(
        self, tensors: Sequence[Tensor], inputs: int, further: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Undo :meth:`joined`.

        Args:
            tensors: Blocked inputs, further blocked ones, shared inputs, further shared ones.
            inputs: How many of them are inputs of this tile.
            further: How many further blocked ones there are; None is one for each kept result.
        """
        further = self.kept if further is None else further
        shared = inputs - self.blocked
        own, rest = list(tensors[: self.blocked]), list(tensors[self.blocked :])
        first, rest = rest[:further], rest[further:]
        return own + rest[:shared], first + rest[shared:]

    def joined(self, inputs: Sequence[Tensor], further: Sequence[Tensor], count: int) -> list[Tensor]:
        """Return the inputs of a derived tile: blocked, the first ``count`` further ones, shared, the other ones."""
        return [*inputs[: self.blocked], *further[:count], *inputs[self.blocked :], *further[count:]]


def stream(tile: Tile, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Compute a tile function over all tiles.

    Args:
        tile: What is computed of each.
        inputs: Blocked tensors with shape (..., N, m), N common to all, then shared tensors of any shape.

    Returns:
        The kept results with shape (..., N, m), then the summed ones. Autograd and torch.func differentiate them as
        often as the tile function.
    """
    results: tuple[Tensor, ...] = _Stream.apply(tile, *inputs)  # type: ignore[no-untyped-call]
    return results


class _Stream(torch.autograd.Function):
    """Inputs to results; see :func:`stream`."""

    @staticmethod
    def forward(tile: Tile, *inputs: Tensor) -> tuple[Tensor, ...]:
        length = inputs[0].shape[-2]
        if length <= tile.rows:
            return tuple(_own(result, inputs) for result in tile.function(*inputs))
        results: list[Tensor] = []
        for start in range(0, length, tile.rows):
            stop = min(start + tile.rows, length)
            blocked = [tensor[..., start:stop, :] for tensor in inputs[: tile.blocked]]
            found = tile.function(*blocked, *inputs[tile.blocked :])
            if not results:
                results = _space(found, tile.kept, length)
            for whole, part in zip(results[: tile.kept], found, strict=False):
                whole[..., start:stop, :] = part
            for whole, part in zip(results[tile.kept :], found[tile.kept :], strict=True):
                whole += part
        return tuple(results)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.tile = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
        tile: Tile = ctx.tile
        found = iter(stream(tile.pulled(needed), tile.joined(inputs, cotangents, tile.kept)))
        return None, *(next(found) if flag else None for flag in needed)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        inputs = ctx.saved_tensors
        tile: Tile = ctx.tile
        given = [t is not None and x.is_floating_point() for t, x in zip(tangents, inputs, strict=True)]
        further = [tangent for tangent, flag in zip(tangents, given, strict=True) if tangent is not None and flag]
        return stream(tile.pushed(given), tile.joined(inputs, further, sum(given[: tile.blocked])))

    @staticmethod
    def vmap(info: Any, in_dims: Any, tile: Tile, *inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        dims = tuple(None if dim is None else 0 for dim in in_dims[1:])
        moved = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(inputs, in_dims[1:], strict=True)]
        results = stream(tile.mapped(dims, info.batch_size), moved)
        return results, tuple(0 for _ in results)


def _own(result: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """A result that is no input: an autograd function may not return one of those as it is."""
    return result.clone() if any(result is tensor for tensor in inputs) else result


def _space(found: Sequence[Tensor], kept: int, length: int) -> list[Tensor]:
    """Return space for whole results: uninitialised for those that are kept, zeros for those that are summed."""
    wholes = [part.new_empty((*part.shape[:-2], length, part.shape[-1])) for part in found[:kept]]
    return wholes + [torch.zeros_like(part, memory_format=torch.contiguous_format) for part in found[kept:]]


def _restricted(function: TileFunction, inputs: Sequence[Tensor], chosen: Sequence[int]) -> TileFunction:
    """Return the function of the chosen inputs alone."""

    def moving(*some: Tensor) -> tuple[Tensor, ...]:
        every = list(inputs)
        for i, tensor in zip(chosen, some, strict=True):
            every[i] = tensor
        return function(*every)

    return moving


def _push(function: TileFunction, point: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the derivative along tangents, as the transpose of the transpose.

    torch.func.jvp would cost half as much, but forward mode cannot be nested in forward mode outside torch.func.
    """
    values = function(*point)

    def pull(*cotangents: Tensor) -> tuple[Tensor, ...]:
        _, back = torch.func.vjp(function, *point)  # type: ignore[misc]
        gradients: tuple[Tensor, ...] = back(cotangents)
        return gradients

    _, forth = torch.func.vjp(pull, *(torch.zeros_like(value) for value in values))  # type: ignore[misc]
    pushed: tuple[Tensor, ...] = forth(tuple(tangents))
    return pushed
