"""Chains of linear maps of each token with a proven Lipschitz bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._conditions import PerSample
from invattn.branches.base import Branch
from invattn.branches.chain import (
    activation_factors,
    chain_scale,
    linearise_chain,
    make_shift,
    run_chain,
    shifted,
    shifts_of,
    split_shift,
)
from invattn.functional import spectral_norm
from invattn.lipschitz import Activation, Factor, LipschitzBound, make_activation, product_bound
from invattn.logdet._linearised import Transpose
from invattn.norms import get_norm


class CertifiedMLP(Branch):
    """g(x)_i = W_n a_{n-1} ... a_1 W_1 x_i with Lip(g) <= c, over tokens (B, N, C) or vectors (B, C).

    W_n is scaled by min(1, c / (|W_1| ... |W_n| times the constants of the activations)).

    Args:
        channels: C.
        hidden_channels: Channels between the linear maps, in the order of application; empty: one map.
        activation: Name of the activation between the maps, see :data:`invattn.lipschitz.ACTIVATIONS`.
        activate_first: Whether one stands before the first map too.
        lipschitz: c, strictly between 0 and 1.
        norm: The norm that the certificate is stated in; each token is mapped by itself, so the same number holds in
            "inf,2" and in "2".
        context_channels: K of a context (B, K) that moves all biases, see :meth:`Branch.given`; None for no context.

    Raises:
        ValueError: If an argument is out of its range, or a name unknown.

    References:
        Behrmann et al. 2019; Chen et al. 2019.
    """

    certificate_norm = "inf,2"

    def __init__(
        self,
        *,
        channels: int,
        hidden_channels: Sequence[int] = (64, 64),
        activation: str = "lipswish",
        activate_first: bool = False,
        lipschitz: float = 0.9,
        norm: str = "inf,2",
        context_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 < lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {lipschitz}.")
        get_norm(norm)
        self.channels = channels
        self.activation = activation
        self.lipschitz = lipschitz
        self.certificate_norm = norm
        widths = [channels, *hidden_channels, channels]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.activations = nn.ModuleList(
            make_activation(activation) for _ in range(len(hidden_channels) + activate_first)
        )
        self.context = make_shift(context_channels, widths[1:])

    @property
    def kind(self) -> str:
        return "MLP"

    @property
    def mixes_tokens(self) -> bool:
        return False

    @property
    def certified(self) -> bool:
        return True

    def check_input(self, x: Tensor) -> None:
        """Raise unless x is floating point with shape (B, N, channels) or (B, channels)."""
        if not x.is_floating_point():
            raise TypeError(f"tokens must be floating point; got {x.dtype}. Convert them first: x.float().")
        if x.dim() not in (2, 3) or x.shape[-1] != self.channels:
            raise ValueError(
                f"tokens must have shape (B, N, {self.channels}), vectors (B, {self.channels}); got {tuple(x.shape)}."
            )

    def forward(self, x: Tensor) -> Tensor:
        return self._apply_chain(x, shifts_of(self.context, x), weights=self._weights()[0])

    @torch.no_grad()
    def at_present_weights(self) -> Callable[[Tensor], Tensor]:
        return self._fixed(self._weights()[0])

    @torch.no_grad()
    def proven_at_present_weights(self) -> tuple[Callable[[Tensor], Tensor], LipschitzBound]:
        weights, norms = self._weights()
        return self._fixed(weights), self._bound(weights, norms)

    def _fixed(self, weights: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        run = partial(self._apply_chain, weights=weights)
        return run if self.context is None else PerSample(run, self.context.at_present_context())

    def linearised(self, x: Tensor) -> tuple[Tensor, Transpose]:
        weights, _ = self._weights()
        backwards = [partial(F.linear, weight=weight.detach().mT) for weight in weights]
        maps = self._maps(x, shifts_of(self.context, x), weights)
        return linearise_chain(x, maps, self._parts()[1], transposes=backwards)

    def _apply_chain(self, x: Tensor, shift: Tensor | None = None, *, weights: Sequence[Tensor]) -> Tensor:
        return run_chain(x, self._maps(x, shift, weights), self._parts()[1])

    def _maps(self, x: Tensor, shift: Tensor | None, weights: Sequence[Tensor]) -> list[Callable[[Tensor], Tensor]]:
        self.check_input(x)
        layers, _ = self._parts()
        shifts = split_shift(shift, [layer.out_features for layer in layers])
        return [
            partial(_linear, weight=weight, bias=layer.bias, shift=own)
            for weight, layer, own in zip(weights, layers, shifts, strict=True)
        ]

    @torch.no_grad()
    def lipschitz_bound(self) -> LipschitzBound:
        """Return the product over the chain from the weights as forward multiplies them, in float64 with a margin."""
        return self._bound(*self._weights())

    def _bound(self, weights: Sequence[Tensor], norms: Sequence[Tensor]) -> LipschitzBound:
        """Return the bound of the chain with these weights, from the norms of all but the last."""
        _, activations = self._parts()
        every = [*norms, spectral_norm(weights[-1])]
        factors = [Factor(f"layer_{i}.norm", f"|W_{i}|", float(norm)) for i, norm in enumerate(every, start=1)]
        factors += activation_factors(activations, self.activation)
        return product_bound(factors, norm=self.certificate_norm)

    def _parts(self) -> tuple[list[nn.Linear], list[Activation]]:
        return [cast(nn.Linear, part) for part in self.layers], [cast(Activation, part) for part in self.activations]

    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights as forward multiplies them, the last one scaled in its own dtype, and the other norms."""
        layers, activations = self._parts()
        norms = [spectral_norm(layer.weight) for layer in layers]
        scale = chain_scale(norms, activations, lipschitz=self.lipschitz)
        weights: list[Tensor] = [layer.weight for layer in layers]
        return [*weights[:-1], weights[-1] * scale.to(weights[-1].dtype)], norms[:-1]

    def extra_repr(self) -> str:
        return f"channels={self.channels}, lipschitz={self.lipschitz}, norm={self.certificate_norm!r}"


def _linear(x: Tensor, weight: Tensor, bias: Tensor, shift: Tensor | None) -> Tensor:
    return shifted(F.linear(x, weight, bias), shift)


_VALUE, _OUTPUT = 0.5, 2.0


@torch.no_grad()
def start_as_shift(value: nn.Linear, output: nn.Linear) -> None:
    """Set W_V = I/2, W_L = -2 I and no biases, so that g(x)_i is about -(the mean of the tokens that token i sees).

    Where a token sees those of its own cluster, x + g(x) shrinks the cluster's centre and leaves the differences
    within it alone: what a density model of exchangeable points has to do. The scale that holds the certificate then
    takes the part of W_L that the bound does not allow.

    Args:
        value: The map W_V, C to C.
        output: The map W_L, C to C.
    """
    for linear, factor in ((value, _VALUE), (output, -_OUTPUT)):
        linear.weight.copy_(factor * torch.eye(*linear.weight.shape))
        linear.bias.zero_()
