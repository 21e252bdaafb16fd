"""The controls: the same maps with fixed weights in the place of attention, the identity or uniform ones."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from invattn.branches.base import Branch
from invattn.branches.scaled import ScaledBranch, make_shift, shifted, split_shift, start_as_shift
from invattn.functional import spectral_norm, squash
from invattn.lipschitz import Factor, LipschitzBound, product_bound
from invattn.lipschitz.bound import held_scale


class _FixedWeights(ScaledBranch):
    """g(x)_i = W_L sum_j P_ij sigma(W_V x_j + b_V) + b_L with fixed rows P_i, non-negative, of sum 1.

    A mean of values changes by no more than the largest change of a value, so Lip(g) <= |W_L| |W_V| in |.|_{inf,2}.
    """

    def __init__(self, *, channels: int, lipschitz: float = 0.9, context_channels: int = 0) -> None:
        super().__init__(channels=channels, lipschitz=lipschitz)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.context = make_shift(context_channels, (channels, channels))

    @abstractmethod
    def _mix(self, values: Tensor) -> Tensor:
        """Return sum_j P_ij v_j of values with shape (B, N, C); one token where it is the same for all i."""

    def _apply_scaled(self, x: Tensor, shift: Tensor | None = None, *, scaled: tuple[Tensor, ...]) -> Tensor:
        self.check_input(x)
        inner, outer = split_shift(shift, (self.channels, self.channels))
        mixed = self._mix(squash(shifted(self.value(x), inner)))
        image = F.linear(mixed, self.output.weight * scaled[0].to(x.dtype), self.output.bias)
        return shifted(image, outer).expand_as(x)

    def _norms(self) -> tuple[Tensor, ...]:
        """Return |W_L| before it is scaled, and |W_V|."""
        return spectral_norm(self.output.weight), spectral_norm(self.value.weight)

    def _scaled(self, norms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the scale of W_L."""
        return (held_scale(norms[0] * norms[1], lipschitz=self.lipschitz),)

    def _bound(self, norms: tuple[Tensor, ...], scaled: tuple[Tensor, ...]) -> LipschitzBound:
        """Return |W_L| |W_V|."""
        output = spectral_norm(self.output.weight * scaled[0].to(self.output.weight.dtype))
        factors = [
            Factor("output_norm", "|W_L|", float(output)),
            Factor("value_norm", "|W_V|", float(norms[1])),
        ]
        return product_bound(factors, norm=self.certificate_norm)


class CertifiedPointwise(_FixedWeights):
    """g(x)_i = W_L sigma(W_V x_i + b_V) + b_L with Lip(g) <= c: certified attention with P = I.

    Args:
        channels: C.
        lipschitz: c, strictly between 0 and 1.
        context_channels: K of a context (B, K) that moves both biases, see :meth:`Branch.given`; 0: none.
    """

    @property
    def kind(self) -> str:
        return "pointwise"

    @property
    def mixes_tokens(self) -> bool:
        return False

    def _mix(self, values: Tensor) -> Tensor:
        return values


class CertifiedPooling(_FixedWeights):
    """g(x)_i = W_L (1/N) sum_j sigma(W_V x_j + b_V) + b_L with Lip(g) <= c: certified attention with P = 1/N.

    Args:
        channels: C.
        lipschitz: c, strictly between 0 and 1.
        context_channels: K of a context (B, K) that moves both biases, see :meth:`Branch.given`; 0: none.
    """

    @property
    def kind(self) -> str:
        return "uniform pooling"

    def _mix(self, values: Tensor) -> Tensor:
        return values.mean(dim=-2, keepdim=True)

    def attention_weights(self, x: Tensor) -> Tensor:
        self.check_input(x)
        batch, tokens, _ = x.shape
        return x.new_full((batch, 1, tokens, tokens), 1 / tokens)

    def start_as_mean_shift(self) -> None:
        """Set the weights as :func:`start_as_shift` says."""
        start_as_shift(self.value, self.output)


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
