"""Residual channel attention block (RCAB)."""

from __future__ import annotations

from torch import Tensor, nn

REDUCTION = 16
"""Channels per hidden unit of the gate."""


class ResidualChannelAttention(nn.Module):
    """x + gate(h) h with h = conv(relu(conv(x))), the gate one number in 0..1 for each channel of the image.

    Args:
        channels: C, at least 16.

    References:
        Zhang et al. 2018, "Image super-resolution using very deep residual channel attention networks".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        )
        hidden = max(1, channels // REDUCTION)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x, (B, C, H, W)."""
        change: Tensor = self.body(x)
        gate: Tensor = self.gate(change)
        return x + gate * change

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = super().__call__(x)
        return result
