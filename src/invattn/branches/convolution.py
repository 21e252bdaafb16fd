"""Chains of convolutions with a proven Lipschitz bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from invattn._errors import check_name
from invattn.branches.chain import ScaledChain
from invattn.functional import PADDINGS, convolution_norm, convolution_norm_method, convolution_token_norm, convolve
from invattn.functional.convolution import arranged, transposed_convolution


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


class CertifiedConvolution(ScaledChain):
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
        context_channels: K of a context (B, K) that moves all biases, see :meth:`Branch.given`; 0: none.

    Raises:
        ValueError: If an argument is out of its range; names and sides are checked.

    References:
        docs/theory.md, "Convolutions"; Behrmann et al. 2019 and Chen et al. 2019 (the block).
    """

    symbol = "K"

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
        context_channels: int = 0,
    ) -> None:
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd and at least one; got {tuple(kernel_sizes)}.")
        widths = [channels, *[hidden_channels] * (len(kernel_sizes) - 1), channels]
        super().__init__(
            widths=widths,
            layers=(
                nn.Conv2d(before, after, size)
                for before, after, size in zip(widths, widths[1:], kernel_sizes, strict=False)
            ),
            activation=activation,
            activate_first=activate_first,
            lipschitz=lipschitz,
            norm=norm,
            context_channels=context_channels,
        )
        self.padding = Padding() if padding is None else padding

    @property
    def kind(self) -> str:
        return "convolution"

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

    def _arrange(self, x: Tensor) -> Tensor:
        return arranged(x)

    def _map(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(x, weight, bias=bias, padding=self.padding.mode)

    def _transposed(self, weight: Tensor) -> Callable[[Tensor], Tensor]:
        return transposed_convolution(weight, padding=self.padding.mode)

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
