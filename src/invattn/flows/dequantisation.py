"""Noise that turns whole values into real ones: uniform, or learned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from invattn.bijections import Composed, ResidualBijection
from invattn.branches import CertifiedMLP
from invattn.flows.flow import Flow, Shape
from invattn.logdet import PowerSeries, Shard, TokenwiseExact

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


def _noise(make: Callable[..., Tensor], values: Tensor, shard: Shard, generator: torch.Generator | None) -> Tensor:
    """Return what ``make``, such as ``torch.rand``, draws of the shape, dtype and device of values of one shard."""
    device = values.device if generator is None else generator.device
    drawn = shard.draw(
        tuple(values.shape), lambda shape: make(shape, dtype=values.dtype, device=device, generator=generator)
    )
    return drawn.to(values.device)


class UniformDequantisation(Dequantisation):
    """u uniform on [0, 1)^d, independent of v; log q = 0.

    Args:
        shard: Which part of a batch over several processes the values are.

    References:
        Theis et al. 2016, Sec. 3.1 (log p(v) >= E log p(v + u)).
    """

    def __init__(self, *, shard: Shard | None = None) -> None:
        super().__init__()
        self.shard = Shard() if shard is None else shard

    def draw(self, values: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return _noise(torch.rand, values, self.shard, generator), values.new_zeros(values.shape[0])


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
        shard: Shard | None = None,
    ) -> None:
        super().__init__()
        self.shard = Shard() if shard is None else shard
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
        estimator = TokenwiseExact() if channels <= _EXACT_CHANNELS else PowerSeries(shard=self.shard)
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
        noise = _pixels(_noise(torch.randn, values, self.shard, generator))
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


class Dequantised(nn.Module, Distribution):
    """The distribution of whole values v in 0 ... levels - 1 whose cells a flow fills.

    ``forward`` is :meth:`elbo`, so that wrappers that only see ``forward`` (DDP) synchronise gradients: training
    minimises ``-forward(v).mean()``, which trains flow and dequantisation together.

    Args:
        flow: The density of x = (v + u) / levels + low.
        dequantisation: q(u | v); None is :class:`UniformDequantisation`.
        levels: Number of values, 256 for 8 bits.
        low: Where the interval of x begins.

    References:
        Theis et al. 2016; Ho et al. 2019 (Flow++), Sec. 3.1; Burda et al. 2016 (importance weighting).

    Example:
        >>> import torch
        >>> from invattn.flows import Dequantised, MultiscaleIResNet, VariationalDequantisation
        >>> flow = MultiscaleIResNet((1, 4, 4), blocks=(1,), hidden_channels=4)
        >>> images = Dequantised(flow, VariationalDequantisation((1, 4, 4)))
        >>> images.log_prob_bound(torch.randint(0, 256, (2, 1, 4, 4)), samples=3).shape
        torch.Size([2])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, flow: Flow, dequantisation: Dequantisation | None = None, *, levels: int = 256, low: float = -0.5
    ) -> None:
        nn.Module.__init__(self)
        if levels < 2:
            raise ValueError(f"levels must be at least 2; got {levels}.")
        Distribution.__init__(self, torch.Size(), flow.event_shape, validate_args=False)
        self.flow = flow
        self.dequantisation = UniformDequantisation() if dequantisation is None else dequantisation
        self.levels, self.low = levels, low

    def forward(self, values: Tensor) -> Tensor:
        """Return ``elbo(values)``."""
        return self.elbo(values)

    def elbo(self, values: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return log p(v + u) - log q(u | v) at one draw of u, in nats, shape (B,): in expectation below log P(v).

        Args:
            values: Whole numbers with shape (B, *event_shape), of any type.
            generator: Where u comes from; None is torch's default generator.

        Raises:
            ValueError: If the values have another shape, are not whole or out of range.
        """
        x, cost = self.spread(values, generator=generator)
        log_p: Tensor = self.flow.log_prob(x)
        return log_p - cost

    def spread(self, values: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return x = (v + u) / levels + low at one draw of u, and what it takes from log p(x) to make an :meth:`elbo`.

        Args:
            values: As for :meth:`elbo`.
            generator: Where u comes from; None is torch's default generator.

        Returns:
            x with shape (B, *event_shape), and d log levels + log q(u | v) in nats, shape (B,).
        """
        values = self._checked(values)
        noise, log_q = self.dequantisation.draw(values, generator=generator)
        x = (values + noise) / self.levels + self.low
        return x, math.prod(self.event_shape) * math.log(self.levels) + log_q

    def log_prob_bound(self, values: Tensor, *, samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Return log of the mean of p(v + u) / q(u | v) over draws of u, in nats, shape (B,).

        In expectation it is below log P(v), and the nearer the more samples. That holds where the log-determinants
        are exact; random probes add their noise to each ratio, and the mean of exponentials makes of it a value that
        is too large by about half its variance.

        Args:
            values: As for :meth:`elbo`.
            samples: k, the number of draws; 1 is the evidence lower bound.
            generator: Where u comes from; None is torch's default generator.
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1; got {samples}.")
        draws = [self.elbo(values, generator=generator) for _ in range(samples)]
        return torch.logsumexp(torch.stack(draws), dim=0) - math.log(samples)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw whole values, int64; what the flow puts outside of the range goes to its ends."""
        x = self.flow.sample(sample_shape)
        return ((x - self.low) * self.levels).floor().clamp(0, self.levels - 1).long()

    def _checked(self, values: Tensor) -> Tensor:
        """Return values in the dtype of the weights."""
        if values.shape[1:] != self.event_shape:
            raise ValueError(
                f"values must have shape (B, {', '.join(map(str, self.event_shape))}); got {tuple(values.shape)}."
            )
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < self.levels:
            raise ValueError(
                f"values must be whole numbers from 0 to {self.levels - 1}; got {values.min()} to {values.max()}."
            )
        if values.is_floating_point() and not bool((values == values.floor()).all()):
            raise ValueError("values must be whole numbers: dequantisation itself adds the noise.")
        own = chain(self.parameters(), self.buffers())
        types = (tensor.dtype for tensor in own if tensor.is_floating_point())
        return values.to(next(types, torch.get_default_dtype()))


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """Return -log P / (d ln 2) of log-probabilities of whole values in nats.

    Args:
        log_prob: log P(v), any shape.
        dimensions: d, the entries of one sample.
    """
    return -log_prob / (dimensions * math.log(2))
