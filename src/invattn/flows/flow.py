"""A normalizing flow: a bijection and a base distribution."""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from invattn._conditions import Condition, batch_of, bind, check_rows, select_rows
from invattn.bijections import Bijection
from invattn.flows.classes import draw_through, log_density

Shape = torch.Size | list[int] | tuple[int, ...]


class Flow(nn.Module, Distribution):
    """The distribution of x where z = f(x) follows a base distribution.

    log p(x) = log p_base(f(x)) + log|det df/dx|. ``forward`` is ``log_prob``, so that wrappers that only see
    ``forward`` (DDP) synchronise gradients. A flow that ends in :class:`invattn.bijections.ClassAffine` is, without
    labels, the mixture of its classes, each as likely as another.

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

    def given(self, context: Tensor | None = None, *, labels: Tensor | None = None) -> Flow:
        """Return the B distributions of x at B contexts, or of B classes; they share the parameters.

        Args:
            context: Real numbers, one row a sample, shape (B, K), for blocks with ``context_channels``.
            labels: Classes, shape (B,), for a prior of each class.

        Returns:
            A flow with batch shape (B,): ``log_prob`` takes (B, *event_shape), or (..., B, *event_shape), and
            ``sample((n,))`` returns (n, B, *event_shape).

        Raises:
            ValueError: If they do not fit, or no part of the flow takes what was given.

        Example:
            >>> import torch
            >>> from invattn.flows import ResidualFlow
            >>> flow = ResidualFlow(2, blocks=2, context_channels=3).given(torch.randn(5, 3))
            >>> flow.sample((4,)).shape
            torch.Size([4, 5, 2])
        """
        condition = Condition(context=context, labels=labels)
        bijection, base = bind(self.bijection, condition), self.base
        if isinstance(base, nn.Module):
            base = cast(Distribution, bind(base, condition))
        if bijection is self.bijection and base is self.base:
            raise ValueError(
                "no part of this flow takes what was given: a context needs context_channels, labels need classes."
            )
        return _Conditioned(bijection, base, batch=batch_of(condition))

    def forward(self, x: Tensor, context: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Return ``log_prob(x)``, at a context or at labels if they are given."""
        if context is None and labels is None:
            return self.log_prob(x)
        return self.given(context, labels=labels).log_prob(x)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) in nats with shape (B,), for x with shape (B, *event_shape)."""
        return log_density(self.bijection, self.base, value)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw samples whose gradient reaches the parameters of the bijection.

        Raises:
            ConvergenceError: If an inverse did not converge.
        """
        z = self.base.sample(torch.Size(sample_shape))
        x = draw_through(self.bijection, z.reshape(-1, *self.base.event_shape))
        return x.reshape(*sample_shape, *x.shape[1:])

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw samples without gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)


class _Conditioned(Flow):
    """B distributions of one flow, made by :meth:`Flow.given`."""

    def __init__(self, bijection: Bijection, base: Distribution, *, batch: int) -> None:
        super().__init__(bijection, base)
        self._batch_shape = torch.Size((batch,))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) in nats with shape (..., B), for x with shape (..., B, *event_shape)."""
        leading = value.shape[: value.dim() - len(self.event_shape)]
        check_rows(self._batch_shape[0], leading[-1] if leading else 1)
        flow = self._repeated(math.prod(leading[:-1]))
        return log_density(flow.bijection, flow.base, value.reshape(-1, *self.event_shape)).reshape(leading)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw samples with shape (*sample_shape, B, *event_shape); else as :meth:`Flow.rsample`."""
        times, batch = math.prod(sample_shape), self._batch_shape[0]
        flow = self._repeated(times)
        x = draw_through(flow.bijection, flow.base.sample(torch.Size((times * batch,))))
        return x.reshape(*sample_shape, batch, *x.shape[1:])

    def _repeated(self, times: int) -> Flow:
        """Return the same with every condition given this many times, one set after another."""
        if times == 1:
            return self
        return select_rows(self, torch.arange(self._batch_shape[0]).repeat(times))
