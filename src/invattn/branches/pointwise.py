"""The control: the same maps without any mixing of tokens (weights = identity)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.branches.base import Branch
from invattn.branches.chain import make_shift, shifted, shifts_of, split_shift
from invattn.branches.mlp import start_as_shift
from invattn.functional import spectral_norm, squash
from invattn.lipschitz import Factor, LipschitzBound, held_scale, product_bound


class CertifiedPointwise(Branch):
    """g(x)_i = W_L sigma(W_V x_i + b_V) + b_L with Lip(g) <= c: certified attention with P = I.

    Args:
        channels: C.
        lipschitz: c, strictly between 0 and 1.
        context_channels: K of a context (B, K) that moves both biases, see :meth:`Branch.given`; None for no context.
    """

    def __init__(self, *, channels: int, lipschitz: float = 0.9, context_channels: int | None = None) -> None:
        super().__init__()
        if not 0 < lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {lipschitz}.")
        self.channels = channels
        self.lipschitz = lipschitz
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.context = make_shift(context_channels, (channels, channels))

    @property
    def kind(self) -> str:
        return "pointwise"

    @property
    def mixes_tokens(self) -> bool:
        return False

    @property
    def certified(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        inner, outer = split_shift(shifts_of(self.context, x), (self.channels, self.channels))
        value = squash(shifted(self.value(x), inner))
        image = F.linear(value, self.output.weight * self._scale().to(x.dtype), self.output.bias)
        return shifted(image, outer)

    def lipschitz_bound(self) -> LipschitzBound:
        """Return |W_L| |W_V| from the weights as forward multiplies them."""
        with torch.no_grad():
            output = self.output.weight * self._scale().to(self.output.weight.dtype)
            norms = [float(spectral_norm(weight)) for weight in (output, self.value.weight)]
        factors = [Factor("output_norm", "|W_L|", norms[0]), Factor("value_norm", "|W_V|", norms[1])]
        return product_bound(factors, norm="inf,2")

    def _scale(self) -> Tensor:
        product = spectral_norm(self.output.weight) * spectral_norm(self.value.weight)
        return held_scale(product, lipschitz=self.lipschitz)


class RelaxedPointwise(Branch):
    """g(x)_i = W_L (W_V x_i + b_V) + b_L: an uncertified recipe with P = I.

    Args:
        channels: C.
        value: The map F of the paper, C to C.
        output: W_L or what stands for it, C to C.
    """

    def __init__(self, *, channels: int, value: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.channels = channels
        self.value = value
        self.output = output

    @property
    def kind(self) -> str:
        return "pointwise"

    @property
    def mixes_tokens(self) -> bool:
        return False

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        result: Tensor = self.output(self.value(x))
        return result


class CertifiedPooling(Branch):
    """g(x)_i = W_L (1/N) sum_j sigma(W_V x_j + b_V) + b_L with Lip(g) <= c: certified attention with P = 1/N.

    A mean of values changes by no more than the largest change of a value, so Lip(g) <= |W_L| |W_V| in |.|_{inf,2}.

    Args:
        channels: C.
        lipschitz: c, strictly between 0 and 1.
        context_channels: K of a context (B, K) that moves both biases, see :meth:`Branch.given`; None for no context.
    """

    def __init__(self, *, channels: int, lipschitz: float = 0.9, context_channels: int | None = None) -> None:
        super().__init__()
        if not 0 < lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {lipschitz}.")
        self.channels = channels
        self.lipschitz = lipschitz
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.context = make_shift(context_channels, (channels, channels))

    @property
    def kind(self) -> str:
        return "uniform pooling"

    @property
    def certified(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        inner, outer = split_shift(shifts_of(self.context, x), (self.channels, self.channels))
        pooled = squash(shifted(self.value(x), inner)).mean(dim=-2, keepdim=True)
        image = F.linear(pooled, self.output.weight * self._scale().to(x.dtype), self.output.bias)
        return shifted(image, outer).expand_as(x)

    def attention_weights(self, x: Tensor) -> Tensor:
        self.check_input(x)
        batch, tokens, _ = x.shape
        return x.new_full((batch, 1, tokens, tokens), 1 / tokens)

    def start_as_mean_shift(self) -> None:
        """Set the weights as :func:`start_as_shift` says."""
        start_as_shift(self.value, self.output)

    def lipschitz_bound(self) -> LipschitzBound:
        """Return |W_L| |W_V| from the weights as forward multiplies them."""
        with torch.no_grad():
            output = self.output.weight * self._scale().to(self.output.weight.dtype)
            norms = [float(spectral_norm(weight)) for weight in (output, self.value.weight)]
        factors = [Factor("output_norm", "|W_L|", norms[0]), Factor("value_norm", "|W_V|", norms[1])]
        return product_bound(factors, norm="inf,2")

    def _scale(self) -> Tensor:
        product = spectral_norm(self.output.weight) * spectral_norm(self.value.weight)
        return held_scale(product, lipschitz=self.lipschitz)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, lipschitz={self.lipschitz}"
