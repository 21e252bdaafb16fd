"""A normalizing flow: a bijection and a base distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from invattn._conditions import Condition, batch_of, bind, check_rows, select_rows
from invattn.bijections import Bijection, ClassAffine, Composed
from invattn.solvers import Adaptive

Shape = torch.Size | list[int] | tuple[int, ...]


class StandardNormal(nn.Module, Distribution):
    """N(0, I) over samples of a given shape.

    Args:
        event_shape: The shape of one sample, without the batch.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    _zero: Tensor

    def __init__(self, event_shape: Sequence[int]) -> None:
        nn.Module.__init__(self)
        Distribution.__init__(self, torch.Size(), torch.Size(event_shape), validate_args=False)
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log N(value; 0, I) in nats, shape (B,)."""
        flat = value.flatten(value.dim() - len(self.event_shape))
        return -0.5 * (flat.square().sum(dim=-1) + flat.shape[-1] * math.log(2 * math.pi))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw samples with shape (*sample_shape, *event_shape)."""
        return torch.randn(
            torch.Size((*sample_shape, *self.event_shape)), dtype=self._zero.dtype, device=self._zero.device
        )


FLOW_SOLVER = Adaptive(atol=0.0, refine=2)
"""The solver of every flow's blocks: to the rounding of the precision at hand.

A flow that has learned contracts most directions, so that its inverse stretches what each of its blocks leaves over.
Measured on trained token flows (12 attention blocks and 4 MLPs at L = 0.99, 1000 test sets in float32): the default
solver of a single block, :class:`invattn.solvers.Adaptive`, left errors of 6e-3, two further steps 2e-3, and this one
1e-4, of which 6e-5 are the rounding of the forward pass; in samples of the flow 2e-4, 2e-5 and 2e-5. Where more is
needed, ``flow.double()`` reaches 1e-9.
"""


def _log_density(bijection: Bijection, base: Distribution, x: Tensor) -> Tensor:
    """Return log p(x) in nats with shape (B,), where f(x) follows the base.

    Where f ends in an affine map of each class and no labels are bound, it is that of the mixture of the classes, each
    as likely as another.
    """
    last = _open_classes(bijection)
    if last is None:
        z, log_det = bijection.forward_and_log_det(x)
        log_base: Tensor = base.log_prob(z)
        return log_base + log_det
    z, log_det = Composed(bijection.parts()[:-1]).forward_and_log_det(x)
    own = []
    for number in range(last.classes):
        labels = torch.full((z.shape[0],), number, dtype=torch.long, device=z.device)
        image, of_class = last.given(labels=labels).forward_and_log_det(z)
        own.append(base.log_prob(image) + of_class)
    mixture: Tensor = torch.logsumexp(torch.stack(own), dim=0) + log_det - math.log(last.classes)
    return mixture


def _draw_through(bijection: Bijection, z: Tensor) -> Tensor:
    """Return f^{-1}(z); where classes are open, each sample is of a class drawn at random."""
    last = _open_classes(bijection)
    if last is not None:
        bijection = bijection.given(labels=torch.randint(0, last.classes, (z.shape[0],), device=z.device))
    return bijection.inverse(z)


def _open_classes(bijection: Bijection) -> ClassAffine | None:
    """Return the last map if it is an affine map of each class without labels."""
    parts = bijection.parts()
    last = parts[-1] if parts else None
    return last if isinstance(last, ClassAffine) and last.labels.bound is None else None


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
        return _log_density(self.bijection, self.base, value)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw samples whose gradient reaches the parameters of the bijection.

        Raises:
            ConvergenceError: If an inverse did not converge.
        """
        z = self.base.sample(torch.Size(sample_shape))
        x = _draw_through(self.bijection, z.reshape(-1, *self.base.event_shape))
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
        return _log_density(flow.bijection, flow.base, value.reshape(-1, *self.event_shape)).reshape(leading)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw samples with shape (*sample_shape, B, *event_shape); else as :meth:`Flow.rsample`."""
        times, batch = math.prod(sample_shape), self._batch_shape[0]
        flow = self._repeated(times)
        x = _draw_through(flow.bijection, flow.base.sample(torch.Size((times * batch,))))
        return x.reshape(*sample_shape, batch, *x.shape[1:])

    def _repeated(self, times: int) -> Flow:
        """Return the same with every condition given this many times, one set after another."""
        if times == 1:
            return self
        return select_rows(self, torch.arange(self._batch_shape[0]).repeat(times))


class ClassConditionalNormal(Flow):
    """A Gaussian of each class with learned means and scales, N(0, I) at the start; unlabelled, their even mixture.

    As the base of a flow it is a label-conditional prior: ``Flow(bijection, base).given(labels=y)``.

    Args:
        event_shape: The shape of one sample, without the batch.
        classes: How many classes there are, numbered from 0.

    Example:
        >>> import torch
        >>> from invattn.flows import ClassConditionalNormal
        >>> prior = ClassConditionalNormal((2,), classes=3)
        >>> prior.given(labels=torch.tensor([0, 2])).log_prob(torch.randn(2, 2)).shape
        torch.Size([2])
    """

    def __init__(self, event_shape: Sequence[int], classes: int) -> None:
        super().__init__(ClassAffine(event_shape, classes), StandardNormal(event_shape))
