"""What chains of maps and activations have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invattn.functional._transforms import transforms_active
from invattn.lipschitz import Activation, Factor, held_scale
from invattn.logdet import Transpose


def run_chain(x: Tensor, maps: Sequence[Callable[[Tensor], Tensor]], activations: Sequence[Activation]) -> Tensor:
    """Return maps and activations by turns, applied to x; with as many of both, an activation comes first."""
    for activation, function in _by_turns(maps, activations):
        x = function(x if activation is None else activation(x))
    return x


def linearise_chain(
    x: Tensor,
    maps: Sequence[Callable[[Tensor], Tensor]],
    activations: Sequence[Activation],
    *,
    transposes: Sequence[Callable[[Tensor], Tensor]],
) -> tuple[Tensor, Transpose]:
    """Return what :func:`run_chain` does, with its graph, and v -> J^T v at x without one.

    The slopes of the activations are computed once, not in every product.

    Args:
        x: The point.
        maps: Affine maps.
        activations: What stands between them.
        transposes: Of the linear part of each map.
    """
    point, steps = x, []
    for (activation, function), transpose in zip(_by_turns(maps, activations), transposes, strict=True):
        steps.append((transpose, None if activation is None else activation.derivative(x.detach())))
        x = function(x if activation is None else activation(x))

    @torch.no_grad()
    def transposed(vector: Tensor) -> Tensor:
        for back, slope in reversed(steps):
            vector = back(vector)
            if slope is not None:
                vector = vector * slope if transforms_active() else vector.mul_(slope)
        return vector.to(point.dtype)

    return x, transposed


def _by_turns(
    maps: Sequence[Callable[[Tensor], Tensor]], activations: Sequence[Activation]
) -> list[tuple[Activation | None, Callable[[Tensor], Tensor]]]:
    """Return each map with the activation before it; the first one has none where there are as many less one."""
    before: list[Activation | None] = [None] * (len(maps) - len(activations))
    return list(zip([*before, *activations], maps, strict=True))


def chain_scale(norms: Sequence[Tensor], activations: Sequence[Activation], *, lipschitz: float) -> Tensor:
    """Return the scale of the last map with which the whole chain is held at c, a float64 scalar.

    Args:
        norms: Bounds of the maps, float64 scalars.
        activations: What stands between them.
        lipschitz: c.
    """
    constants = math.prod([activation.lipschitz for activation in activations])
    return held_scale(torch.stack(list(norms)).prod() * constants, lipschitz=lipschitz)


def activation_factors(activations: Sequence[Activation], name: str) -> list[Factor]:
    """Return what the activations of this name contribute to the bound of a chain."""
    return [
        Factor(f"activation_{i}.lipschitz", f"a_{i}", activation.lipschitz, name)
        for i, activation in enumerate(activations, start=1)
    ]
