"""What chains of maps and activations have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._conditions import Condition, Conditional
from invattn.functional._transforms import transforms_active
from invattn.lipschitz import Activation, Factor
from invattn.lipschitz.bound import held_scale
from invattn.logdet._linearised import Transpose


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


class ContextShift(Conditional):
    """U c, which is added to the biases inside a branch, before what stands after them.

    For every context g is a branch with other biases: Lip(g) <= c holds as it does without. U starts at zero, so that
    a branch starts as one without a context.

    Args:
        context_channels: K, the entries of a sample's context.
        widths: Lengths of the biases.

    Raises:
        ValueError: If ``context_channels`` is below 1.
    """

    def __init__(self, context_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        if context_channels < 1:
            raise ValueError(f"context_channels must be at least 1, or None for no context; got {context_channels}.")
        self.context_channels = context_channels
        self.widths = tuple(widths)
        self.linear = nn.Linear(context_channels, sum(self.widths), bias=False)
        nn.init.zeros_(self.linear.weight)

    @property
    def need(self) -> str:
        return f"a context with {self.context_channels} channels"

    def take(self, condition: Condition) -> Tensor | None:
        context = condition.context
        if context is None:
            return None
        if not context.is_floating_point() or context.dim() != 2 or context.shape[1] != self.context_channels:
            raise ValueError(
                f"the context must be floating point with shape (B, {self.context_channels}); got {context.dtype} "
                f"with shape {tuple(context.shape)}."
            )
        return context

    def forward(self, batch: int) -> Tensor:
        """Return what is added to all biases one after another, shape (B, sum of the widths).

        Raises:
            ValueError: If no context was given, or one of another batch.
        """
        return self._shift(self.values_of(batch))

    def __call__(self, batch: int) -> Tensor:
        result: Tensor = super().__call__(batch)
        return result

    def at_present_context(self) -> Tensor:
        """Return the same for the batch that the context was given for."""
        return self._shift(self.values())

    def _shift(self, context: Tensor) -> Tensor:
        return F.linear(context.to(self.linear.weight.dtype), self.linear.weight)

    def extra_repr(self) -> str:
        return f"context_channels={self.context_channels}, widths={self.widths}"


def make_shift(context_channels: int | None, widths: Sequence[int]) -> ContextShift | None:
    """Return a shift of biases of these lengths, or None without a context."""
    return None if context_channels is None else ContextShift(context_channels, widths)


def shifts_of(context: ContextShift | None, x: Tensor) -> Tensor | None:
    """Return the shift of all biases for a batch of inputs, None without a context."""
    return None if context is None else context(x.shape[0])


def split_shift(shift: Tensor | None, widths: Sequence[int]) -> Sequence[Tensor | None]:
    """Return what is added to each bias, (B, width) each, None for zero."""
    return [None] * len(widths) if shift is None else torch.split(shift, list(widths), dim=1)


def shifted(image: Tensor, shift: Tensor | None) -> Tensor:
    """Add one number a channel, shape (B, C) or None for zero, to images, tokens or vectors of a batch."""
    if shift is None:
        return image
    if image.dim() == 4:
        return image + shift[:, :, None, None]
    return image + (shift if image.dim() == 2 else shift[:, None])
