"""Fewer channels, seen at several ranges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RATES = (3, 6, 12, 18)
"""Distances in pixels between the taps of the four convolutions."""

OUTER = 0.1
"""Spread of the outer taps at the start, relative to the centre's: it nearly is a 1 x 1 convolution, and learns to look
further."""


class DilatedReduction(nn.Module):
    """The sum of four dilated 3 x 3 convolutions, from any number of channels to a few; height and width stay.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.

    References:
        Zha et al. 2021, Fig. 8; Chen et al. 2017, "DeepLab" (dilated convolutions whose results are added).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=rate, dilation=rate) for rate in RATES
        )
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            # Four centre taps have the variance of one 1 x 1 convolution.
            nn.init.normal_(convolution.weight, std=OUTER * (in_channels * len(RATES)) ** -0.5)
            convolution.weight.data[..., 1, 1] /= OUTER
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, shape (B, out_channels, H, W), for x with shape (B, in_channels, H, W)."""
        return torch.stack([convolution(x) for convolution in self.convolutions]).sum(dim=0)

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = super().__call__(x)
        return result
