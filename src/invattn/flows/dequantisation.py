"""Noise that turns whole values into real ones: uniform, or learned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.bijections import Composed, ResidualBijection
from invattn.branches import CertifiedMLP
from invattn.logdet import WHOLE, PowerSeries, Shard, TokenwiseExact

_START = 1.6  # of all logit-normal distributions that with this scale is nearest to uniform: 0.02 nats
_LIMIT = 3.0  # of log scales and of means, by tanh
_LARGEST = 1 - 2**-16  # v + u stays below v + 1 in float32 for v up to 255
_EXACT_CHANNELS = 16


class Dequantisation(nn.Module, ABC):
    """A distribution q(u | v) on [0, 1)^d of the noise that is added to whole values v."""

    @abstractmethod
    def draw(self, values: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw noise, differentiable in the parameters.

        Args:
            values: v with shape (B, ...), floating point.
            generator: Where the noise comes from; None is torch's default generator.

        Returns:
            u with the shape and dtype of v, and log q(u | v) in nats, shape (B,).
        """


class UniformDequantisation(Dequantisation):
    """u uniform on [0, 1)^d, independent of v; log q = 0.

    Args:
        shard: Which part of a batch over several processes the values are.

    References:
        Theis et al. 2016, Sec. 3.1 (log p(v) >= E log p(v + u)).
    """

    def __init__(self, *, shard: Shard = WHOLE) -> None:
        super().__init__()
        self.shard = shard

    def draw(self, values: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        device = values.device if generator is None else generator.device
        noise = self.shard.draw(
            tuple(values.shape),
            lambda shape: torch.rand(shape, dtype=values.dtype, device=device, generator=generator),
        )
        return noise.to(values.device), values.new_zeros(values.shape[0])


class VariationalDequantisation(Dequantisation):
    """u = sigmoid(m + s y), y = a residual flow of normal noise, all conditioned on the image around each pixel.

    Three convolutions turn v into features of each pixel. They are the context of certified residual blocks that mix
    the channels of the pixel's noise, and give mean m and scale s of each channel. It starts nearly uniform.

    Args:
        image_shape: (C, H, W) of one image.
        levels: Number of values, 256 for 8 bits: v lies in 0 ... ``levels`` - 1.
        hidden_channels: Width of the convolutions.
        features: Entries of the context of a pixel.
        blocks: Residual blocks; 0: noise of the channels is independent given v.
        lipschitz: c of the residual blocks.
        shard: Which part of a batch over several processes the values are.

    Raises:
        ValueError: If a number is out of range.

    References:
        Ho et al. 2019 (Flow++), Sec. 3.1.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        levels: int = 256,
        hidden_channels: int = 32,
        features: int = 16,
        blocks: int = 1,
        lipschitz: float = 0.9,
        shard: Shard = WHOLE,
    ) -> None:
        super().__init__()
        self.shard = shard
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (C, H, W), all at least 1; got {tuple(image_shape)}.")
        if levels < 2 or min(hidden_channels, features) < 1 or blocks < 0:
            raise ValueError(
                "levels >= 2, hidden_channels >= 1, features >= 1 and blocks >= 0 are needed; got "
                f"{levels}, {hidden_channels}, {features} and {blocks}."
            )
        self.image_shape, self.levels = tuple(image_shape), levels
        channels = self.image_shape[0]
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden_channels, features, 1),
        )
        estimator = TokenwiseExact() if channels <= _EXACT_CHANNELS else PowerSeries(shard=shard)
        self.residual = Composed(
            ResidualBijection(
                CertifiedMLP(
                    channels=channels, hidden_channels=(2 * features,), lipschitz=lipschitz, context_channels=features
                ),
                log_det_estimator=estimator,
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(features, 2 * channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def draw(self, values: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        if tuple(values.shape[1:]) != self.image_shape:
            raise ValueError(f"images must have shape {self.image_shape}; got {tuple(values.shape[1:])}.")
        device = values.device if generator is None else generator.device
        noise = self.shard.draw(
            tuple(values.shape),
            lambda shape: torch.randn(shape, dtype=values.dtype, device=device, generator=generator),
        )
        noise = _pixels(noise.to(values.device))
        context, mean, log_scale = self._features(values)
        inner, log_det = self.residual.given(context).forward_and_log_det(noise)
        logit = mean + log_scale.exp() * inner
        log_normal = -0.5 * (noise.square().sum(dim=1) + noise.shape[1] * math.log(2 * math.pi))
        slope = log_scale - F.softplus(logit) - F.softplus(-logit)  # of u in y, as a logarithm
        log_q = (log_normal - log_det - slope.sum(dim=1)).view(values.shape[0], -1).sum(dim=1)
        _, height, width = self.image_shape
        uniform = logit.sigmoid().clamp(max=_LARGEST).view(values.shape[0], height, width, -1)
        return uniform.permute(0, 3, 1, 2), log_q

    def _features(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the context of every pixel, and mean and log scale of its logits, (B H W, features or C) each."""
        context = _pixels(self.net(2 * values / (self.levels - 1) - 1))
        mean, log_scale = (_LIMIT * torch.tanh(part / _LIMIT) for part in self.head(context).chunk(2, dim=1))
        return context, mean, log_scale + math.log(_START)


def _pixels(images: Tensor) -> Tensor:
    """Turn (B, C, H, W) into (B H W, C)."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)
