"""Chains of convolutions with a proven Lipschitz bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from invattn._conditions import PerSample
from invattn._errors import check_name
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
from invattn.functional import PADDINGS, convolution_norm, convolution_norm_method, convolution_token_norm, convolve
from invattn.functional.convolution import arranged, transposed_convolution
from invattn.lipschitz import Activation, Factor, LipschitzBound, make_activation, product_bound
from invattn.logdet._linearised import Transpose
from invattn.norms import get_norm


@dataclass(frozen=True)
class Padding:
    """What lies beyond the edge of an image, and which images there are.

    Attributes:
        mode: "zero" or "circular".
        grid: (H, W) in pixels: every image has this size (circular) or at most this (zero), which makes the
            certificate sharper; None is every size.
    """

    mode: str = "zero"
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_name(self.mode, PADDINGS, what="padding")
        if self.grid is not None and (min(self.grid) < 1):
            raise ValueError(f"grid must be (H, W), both at least 1; got {self.grid}. None is every grid.")

    def covers(self, height: int, width: int) -> bool:
        """Return whether a certificate for the grid holds for an image of this size."""
        if self.grid is None:
            return True
        if self.mode == "circular":
            return (height, width) == tuple(self.grid)
        return height <= self.grid[0] and width <= self.grid[1]


class CertifiedConvolution(Branch):
    """g = K_n a_{n-1} ... a_1 K_1 over images (B, C, H, W) with Lip(g) <= c, the residual block of an i-ResNet.

    K_n is scaled by min(1, c / (|K_1| ... |K_n| times the constants of the activations)).

    Args:
        channels: C.
        hidden_channels: Channels between the convolutions.
        kernel_sizes: Side of each kernel in pixels, odd, in the order of application.
        activation: Name of the activation between the convolutions, see :data:`invattn.lipschitz.ACTIVATIONS`.
        activate_first: Whether one stands before the first convolution too, as in every i-ResNet block but the first.
        padding: What lies beyond the edge; None is zeros, for images of every size.
        lipschitz: c, strictly between 0 and 1.
        norm: The norm of the certificate: "2" (operator norms of the convolutions), or "inf,2" (sums over taps), which
            is the norm of attention.
        context_channels: K of a context (B, K) that moves all biases, see :meth:`Branch.given`; None for no context.

    Raises:
        ValueError: If an argument is out of its range; names and sides are checked.

    References:
        docs/theory.md, "Convolutions"; Behrmann et al. 2019 and Chen et al. 2019 (the block).
    """

    certificate_norm = "2"

    def __init__(
        self,
        *,
        channels: int,
        hidden_channels: int = 64,
        kernel_sizes: Sequence[int] = (3, 1, 3),
        activation: str = "lipswish",
        activate_first: bool = False,
        padding: Padding | None = None,
        lipschitz: float = 0.9,
        norm: str = "2",
        context_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd and at least one; got {tuple(kernel_sizes)}.")
        if not 0 < lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {lipschitz}.")
        get_norm(norm)
        self.channels = channels
        self.padding = Padding() if padding is None else padding
        self.activation = activation
        self.lipschitz = lipschitz
        self.certificate_norm = norm
        widths = [channels, *[hidden_channels] * (len(kernel_sizes) - 1), channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, size)
            for before, after, size in zip(widths, widths[1:], kernel_sizes, strict=False)
        )
        self.activations = nn.ModuleList(
            make_activation(activation) for _ in range(len(kernel_sizes) - 1 + activate_first)
        )
        self.context = make_shift(context_channels, widths[1:])

    @property
    def kind(self) -> str:
        return "convolution"

    @property
    def certified(self) -> bool:
        return True

    def check_input(self, x: Tensor) -> None:
        """Raise unless x is floating point with shape (B, channels, H, W) on a grid that the certificate covers."""
        if not x.is_floating_point():
            raise TypeError(f"images must be floating point; got {x.dtype}. Convert them first: x.float().")
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"images must have shape (B, {self.channels}, H, W); got {tuple(x.shape)}.")
        if not self.padding.covers(*x.shape[2:]):
            most = "exactly" if self.padding.mode == "circular" else "at most"
            raise ValueError(
                f"the certificate is for images of {most} {self.padding.grid} pixels; got {tuple(x.shape[2:])}. "
                "Give padding=Padding(mode, grid=None) for every size."
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
        backwards = [transposed_convolution(weight, padding=self.padding.mode) for weight in weights]
        maps = self._maps(x, shifts_of(self.context, x), weights)
        return linearise_chain(arranged(x), maps, self._parts()[1], transposes=backwards)

    def _apply_chain(self, x: Tensor, shift: Tensor | None = None, *, weights: Sequence[Tensor]) -> Tensor:
        maps = self._maps(x, shift, weights)
        return run_chain(arranged(x), maps, self._parts()[1])

    def _maps(self, x: Tensor, shift: Tensor | None, weights: Sequence[Tensor]) -> list[Callable[[Tensor], Tensor]]:
        self.check_input(x)
        layers, _ = self._parts()
        shifts = split_shift(shift, [layer.out_channels for layer in layers])
        return [
            partial(self._convolve, weight=weight, bias=layer.bias, shift=own)
            for weight, layer, own in zip(weights, layers, shifts, strict=True)
        ]

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor | None) -> Tensor:
        return shifted(convolve(x, weight, bias=bias, padding=self.padding.mode), shift)

    @torch.no_grad()
    def lipschitz_bound(self) -> LipschitzBound:
        """Return the product over the chain from the weights as forward multiplies them, in float64 with a margin."""
        return self._bound(*self._weights())

    def _bound(self, weights: Sequence[Tensor], norms: Sequence[Tensor]) -> LipschitzBound:
        """Return the bound of the chain with these weights, from the norms of all but the last."""
        _, activations = self._parts()
        every = [*norms, self._norm(weights[-1])]
        factors = [
            Factor(f"layer_{i}.norm", f"|K_{i}|", float(norm), self._method(weight))
            for i, (weight, norm) in enumerate(zip(weights, every, strict=True), start=1)
        ]
        factors += activation_factors(activations, self.activation)
        return product_bound(factors, norm=self.certificate_norm)

    def _parts(self) -> tuple[list[nn.Conv2d], list[Activation]]:
        return [cast(nn.Conv2d, part) for part in self.layers], [cast(Activation, part) for part in self.activations]

    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights as forward multiplies them, the last one scaled in its own dtype, and the other norms."""
        layers, activations = self._parts()
        norms = [self._norm(layer.weight) for layer in layers]
        scale = chain_scale(norms, activations, lipschitz=self.lipschitz)
        weights: list[Tensor] = [layer.weight for layer in layers]
        return [*weights[:-1], weights[-1] * scale.to(weights[-1].dtype)], norms[:-1]

    def _norm(self, weight: Tensor) -> Tensor:
        bound = convolution_norm if self.certificate_norm == "2" else convolution_token_norm
        return bound(weight, padding=self.padding.mode, grid=self.padding.grid)

    def _method(self, weight: Tensor) -> str:
        sides = f"{weight.shape[2]} x {weight.shape[3]}"
        if self.certificate_norm != "2":
            return f"{sides}, sum of the norms of its taps"
        method = convolution_norm_method(weight.shape, padding=self.padding.mode, grid=self.padding.grid)
        return f"{sides}, {method}"

    def extra_repr(self) -> str:
        return f"channels={self.channels}, {self.padding}, lipschitz={self.lipschitz}, norm={self.certificate_norm!r}"
