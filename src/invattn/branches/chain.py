"""Chains of maps and activations with a proven Lipschitz bound: what those of linear maps and of convolutions share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from invattn.branches.scaled import ScaledBranch, make_shift, shifted, shifts_of, split_shift
from invattn.functional._transforms import transforms_active
from invattn.lipschitz import Activation, Factor, LipschitzBound, make_activation, product_bound
from invattn.lipschitz.bound import held_scale
from invattn.logdet._linearised import Transpose
from invattn.norms import get_norm


class ScaledChain(ScaledBranch):
    """g = W_n a_{n-1} ... a_1 W_1 with W_n scaled by min(1, c / (|W_1| ... |W_n| times the constants of the a_k)).

    Args:
        widths: Channels before, between and after the maps.
        layers: The maps, modules with weight and bias.
        activation: Name of the activation between the maps.
        activate_first: Whether one stands before the first map too.
        lipschitz: c, strictly between 0 and 1.
        norm: The norm that the certificate is stated in.
        context_channels: K of a context (B, K) that moves all biases; 0: none.
    """

    symbol: ClassVar[str]

    def __init__(
        self,
        *,
        widths: Sequence[int],
        layers: Iterable[nn.Module],
        activation: str,
        activate_first: bool,
        lipschitz: float,
        norm: str,
        context_channels: int,
    ) -> None:
        super().__init__(channels=widths[0], lipschitz=lipschitz)
        get_norm(norm)
        self.activation = activation
        self.certificate_norm = norm
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList(
            make_activation(activation) for _ in range(len(self.layers) - 1 + activate_first)
        )
        self._widths = tuple(widths[1:])
        self.context = make_shift(context_channels, self._widths)

    @abstractmethod
    def _norm(self, weight: Tensor) -> Tensor:
        """Return a bound of the norm of a map, a float64 scalar."""

    @abstractmethod
    def _map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply a map."""

    @abstractmethod
    def _transposed(self, weight: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the transpose of the linear part of a map."""

    def _method(self, weight: Tensor) -> str:
        """Return how the norm of a map is bounded, in words, where there is more than one way."""
        return ""

    def _arrange(self, x: Tensor) -> Tensor:
        """Return x as it lies best in memory."""
        return x

    def linearised(self, x: Tensor) -> tuple[Tensor, Transpose]:
        """Return g(x) with its graph, and v -> J^T v; the slopes of the activations are computed once for all v."""
        weights = self._scaled(self._norms())
        maps = self._maps(x, shifts_of(self.context, x), weights)
        x = self._arrange(x)
        dtype, steps = x.dtype, []
        for (activation, function), weight in zip(maps, weights, strict=True):
            slope = None if activation is None else activation.derivative(x.detach())
            steps.append((self._transposed(weight), slope))
            x = function(x if activation is None else activation(x))

        @torch.no_grad()
        def transposed(vector: Tensor) -> Tensor:
            for back, slope in reversed(steps):
                vector = back(vector)
                if slope is not None:
                    vector = vector * slope if transforms_active() else vector.mul_(slope)
            return vector.to(dtype)

        return x, transposed

    def _apply_scaled(self, x: Tensor, shift: Tensor | None = None, *, scaled: tuple[Tensor, ...]) -> Tensor:
        maps = self._maps(x, shift, scaled)
        x = self._arrange(x)
        for activation, function in maps:
            x = function(x if activation is None else activation(x))
        return x

    def _maps(
        self, x: Tensor, shift: Tensor | None, weights: tuple[Tensor, ...]
    ) -> list[tuple[Activation | None, Callable[[Tensor], Tensor]]]:
        """Return each map with the activation before it, None for none."""
        self.check_input(x)
        maps = [
            partial(self._moved, weight=weight, bias=cast(Any, layer).bias, shift=own)
            for weight, layer, own in zip(weights, self.layers, split_shift(shift, self._widths), strict=True)
        ]
        before: list[Activation | None] = [None] * (len(self.layers) - len(self.activations))
        return list(zip([*before, *self._activations()], maps, strict=True))

    def _moved(self, x: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor | None) -> Tensor:
        return shifted(self._map(x, weight, bias), shift)

    def _activations(self) -> list[Activation]:
        return [cast(Activation, part) for part in self.activations]

    def _stored(self) -> list[Tensor]:
        return [cast(Tensor, layer.weight) for layer in self.layers]

    def _norms(self) -> tuple[Tensor, ...]:
        return tuple(self._norm(weight) for weight in self._stored())

    def _scaled(self, norms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the weights, the last one scaled in its own dtype."""
        constants = math.prod([activation.lipschitz for activation in self._activations()])
        scale = held_scale(torch.stack(list(norms)).prod() * constants, lipschitz=self.lipschitz)
        *first, last = self._stored()
        return *first, last * scale.to(last.dtype)

    def _bound(self, norms: tuple[Tensor, ...], scaled: tuple[Tensor, ...]) -> LipschitzBound:
        """Return the product over the chain."""
        every = zip(scaled, (*norms[:-1], self._norm(scaled[-1])), strict=True)
        factors = [
            Factor(f"layer_{i}.norm", f"|{self.symbol}_{i}|", float(norm), self._method(weight))
            for i, (weight, norm) in enumerate(every, start=1)
        ]
        factors += [
            Factor(f"activation_{i}.lipschitz", f"a_{i}", activation.lipschitz, self.activation)
            for i, activation in enumerate(self._activations(), start=1)
        ]
        return product_bound(factors, norm=self.certificate_norm)
