"""What the flows of every family can be conditioned on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from invattn.bijections import Bijection, ClassAffine, Composed
from invattn.flows.base import StandardNormal
from invattn.flows.flow import Flow


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


def check_conditions(classes: int, context_channels: int) -> None:
    """Raise ValueError unless both numbers are 0 (none) or above."""
    if classes < 0 or context_channels < 0:
        raise ValueError(
            f"classes and context_channels must be at least 1, or 0 for none; got {classes} and {context_channels}."
        )


def with_classes(parts: Iterable[Bijection], shape: Sequence[int], classes: int) -> Composed:
    """Return a chain that ends in the prior of each class, where there are classes.

    Args:
        parts: The chain.
        shape: Of one of its outputs, without the batch.
        classes: How many classes there are; 0 for none.
    """
    return Composed([*parts, ClassAffine(shape, classes)] if classes else parts)
