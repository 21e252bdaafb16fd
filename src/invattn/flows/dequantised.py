"""A distribution of whole values, such as 8-bit images, made of a flow over real ones.

P(v) is the integral of the flow's density over the cell v + [0, 1)^d. With noise u from q(u | v),

    log P(v) >= E[log p(v + u) - log q(u | v)],

the evidence lower bound, and the logarithm of the mean over k draws of p / q is a sharper lower bound in expectation
(importance weighting); both are given in nats. Bits per dimension are -log P(v) / (d ln 2): lower is better, and a
bound of log P from below gives bits per dimension from above. The flow sees x = (v + u) / levels + low, so that
p(v + u) = p(x) / levels^d; that factor is part of every number here.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from invattn.flows.dequantisation import Dequantisation, UniformDequantisation
from invattn.flows.flow import Flow


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
        >>> flow = MultiscaleIResNet((1, 4, 4), (1,), 4)
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

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
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
