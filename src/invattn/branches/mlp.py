"""Chains of linear maps of each token with a proven Lipschitz bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from invattn.branches.chain import ScaledChain
from invattn.functional import spectral_norm


class CertifiedMLP(ScaledChain):
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
        context_channels: K of a context (B, K) that moves all biases, see :meth:`Branch.given`; 0: none.

    Raises:
        ValueError: If an argument is out of its range, or a name unknown.

    References:
        Behrmann et al. 2019; Chen et al. 2019.
    """

    symbol = "W"

    def __init__(
        self,
        *,
        channels: int,
        hidden_channels: Sequence[int] = (64, 64),
        activation: str = "lipswish",
        activate_first: bool = False,
        lipschitz: float = 0.9,
        norm: str = "inf,2",
        context_channels: int = 0,
    ) -> None:
        widths = [channels, *hidden_channels, channels]
        super().__init__(
            widths=widths,
            layers=(nn.Linear(before, after) for before, after in pairwise(widths)),
            activation=activation,
            activate_first=activate_first,
            lipschitz=lipschitz,
            norm=norm,
            context_channels=context_channels,
        )

    @property
    def kind(self) -> str:
        return "MLP"

    @property
    def mixes_tokens(self) -> bool:
        return False

    def check_input(self, x: Tensor) -> None:
        """Raise unless x is floating point with shape (B, N, channels) or (B, channels)."""
        if not x.is_floating_point():
            raise TypeError(f"tokens must be floating point; got {x.dtype}. Convert them first: x.float().")
        if x.dim() not in (2, 3) or x.shape[-1] != self.channels:
            raise ValueError(
                f"tokens must have shape (B, N, {self.channels}), vectors (B, {self.channels}); got {tuple(x.shape)}."
            )

    def _norm(self, weight: Tensor) -> Tensor:
        return spectral_norm(weight)

    def _map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def _transposed(self, weight: Tensor) -> Callable[[Tensor], Tensor]:
        return partial(F.linear, weight=weight.detach().mT)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, norm={self.certificate_norm!r}"
