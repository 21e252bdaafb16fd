"""The prior of each class, and what a flow with such a prior says of samples without a label."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from invattn.bijections import Bijection, ClassAffine, Composed


def log_density(bijection: Bijection, base: Distribution, x: Tensor) -> Tensor:
    """Return log p(x) in nats with shape (B,), where f(x) follows the base.

    Where f ends in an affine map of each class and no labels are bound, it is that of the mixture of the classes, each
    as likely as another.

    Args:
        bijection: f.
        base: Distribution of f(x).
        x: Samples with shape (B, ...).
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


def draw_through(bijection: Bijection, z: Tensor) -> Tensor:
    """Return f^{-1}(z); where classes are open, each sample is of a class drawn at random.

    Args:
        bijection: f.
        z: Samples of the base with shape (B, ...).
    """
    last = _open_classes(bijection)
    if last is not None:
        bijection = bijection.given(labels=torch.randint(0, last.classes, (z.shape[0],), device=z.device))
    return bijection.inverse(z)


def _open_classes(bijection: Bijection) -> ClassAffine | None:
    """Return the last map if it is an affine map of each class without labels."""
    parts = bijection.parts()
    last = parts[-1] if parts else None
    return last if isinstance(last, ClassAffine) and last.labels.bound is None else None
