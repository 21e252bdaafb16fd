"""A learned affine map of each channel, started from data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invattn.bijections.closed_form import ChannelMap, beside, channel_axis, positions
from invattn.bijections.data_dependent import DataDependent


class ActNorm(ChannelMap, DataDependent):
    """z = (x - shift) exp(log_scale), one shift and scale a channel.

    Before :func:`invattn.bijections.initialize` has seen data it is the identity; whether it has is part of the
    state_dict, so that a loaded layer is never started anew.

    Args:
        channels: C.

    References:
        Kingma and Dhariwal 2018 (Glow), Sec. 3.1.
    """

    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialised", torch.tensor(False))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Start from data: the outputs at x then have mean 0 and standard deviation 1 in every channel.

        Args:
            x: Inputs, at least two values a channel. A channel without spread keeps the scale 1.

        Raises:
            ValueError: If x is not finite or has another shape.
        """
        self.check_input(x)
        rows = x.movedim(channel_axis(x), -1).reshape(-1, self.channels).double()
        if len(rows) < 2 or not bool(rows.isfinite().all()):
            raise ValueError("ActNorm starts from at least two finite values a channel. Check the first batch.")
        spread = rows.std(dim=0, correction=0)
        self.shift.copy_(rows.mean(dim=0))
        self.log_scale.copy_(-torch.where(spread > 0, spread, 1).log())
        self.initialised.fill_(True)

    @property
    def is_fitted(self) -> bool:
        return bool(self.initialised)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return (x - beside(self.shift, x)) * beside(self.log_scale.exp(), x)

    def inverse(self, z: Tensor) -> Tensor:
        self.check_input(z)
        return z * beside((-self.log_scale).exp(), z) + beside(self.shift, z)

    def log_det(self, x: Tensor) -> Tensor:
        return (positions(x) * self.log_scale.sum()).to(x.dtype).expand(x.shape[0])

    def stretch(self) -> tuple[float, float]:
        scales = self.log_scale.detach().double().exp()
        return float(scales.min()), float(scales.max())
