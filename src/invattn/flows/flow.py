"""A normalizing flow: a bijection and a base distribution."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from invattn.bijections import Bijection


class Flow(nn.Module, Distribution):
    """The distribution of x where z = f(x) follows a base distribution.

    log p(x) = log p_base(f(x)) + log|det df/dx|. ``forward`` is ``log_prob``, so that wrappers that only see
    ``forward`` (DDP) synchronise gradients.

    Args:
        bijection: f, from data to base.
        base: A distribution whose event is one sample z, in the shape that the bijection gives it.

    References:
        Zha et al. 2021, App. E.1.
    """

    has_rsample = True
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, bijection: Bijection, base: Distribution) -> None:
        nn.Module.__init__(self)
        if base.batch_shape != torch.Size():
            raise ValueError(
                f"the base must be one distribution over whole samples; got batch shape {tuple(base.batch_shape)}. "
                "Use torch.distributions.Independent(base, number of its dimensions)."
            )
        event_shape = torch.Size(bijection.input_shape(base.event_shape))
        Distribution.__init__(self, torch.Size(), event_shape, validate_args=False)
        self.bijection = bijection
        self.base = base

    @property
    def support(self) -> constraints.Constraint:
        real: constraints.Constraint = constraints.independent(constraints.real, len(self.event_shape))  # type: ignore[no-untyped-call]
        return real

    def forward(self, x: Tensor) -> Tensor:
        """Return ``log_prob(x)``."""
        return self.log_prob(x)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) in nats with shape (B,), for x with shape (B, *event_shape)."""
        z, log_det = self.bijection.forward_and_log_det(value)
        log_base: Tensor = self.base.log_prob(z)
        return log_base + log_det

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw samples whose gradient reaches the parameters of the bijection.

        Raises:
            ConvergenceError: If an inverse did not converge.
        """
        z = self.base.sample(torch.Size(sample_shape))
        x = self.bijection.inverse(z.reshape(-1, *self.base.event_shape))
        return x.reshape(*sample_shape, *x.shape[1:])

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw samples without gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)
