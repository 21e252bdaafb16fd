"""What chains of maps and activations have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invattn.lipschitz import Activation, Factor, held_scale


def run_chain(x: Tensor, maps: Sequence[Callable[[Tensor], Tensor]], activations: Sequence[Activation]) -> Tensor:
    """Return maps and activations by turns, applied to x; with as many of both, an activation comes first."""
    ahead = len(activations) - len(maps)
    for index, function in enumerate(maps):
        if index + ahead >= 0:
            x = activations[index + ahead](x)
        x = function(x)
    return x


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
