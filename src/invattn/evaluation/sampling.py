"""Draw samples of a flow, and say of each whether the inverse that made it reached its tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.flows import Flow

BATCH = 100
"""Samples that are inverted together."""


@dataclass(frozen=True)
class Samples:
    """Samples and how their inverses ended.

    Attributes:
        values: Samples with shape (n, *event).
        converged: Whether the inverse of each reached its tolerance, shape (n,), bool.
        failures: The inverses that did not, by status, in words; empty where all did.
    """

    values: Tensor
    converged: Tensor
    failures: str

    @property
    def finite(self) -> Tensor:
        """Whether every entry of a sample is finite, shape (n,), bool."""
        return self.values.isfinite().flatten(1).all(dim=1)


@torch.no_grad()
def draw_samples(
    flow: Flow,
    count: int,
    *,
    seed: int,
    temperature: float = 1.0,
    on_batch: Callable[[int], None] | None = None,
) -> Samples:
    """Invert a flow at draws of its standard normal base; nothing is raised where an inverse fails.

    Base draws come from one generator on the CPU, so that the same seed gives the same draws on any device, and the
    first samples do not depend on how many follow.

    Args:
        flow: The distribution, with a standard normal base.
        count: How many.
        seed: Decides them.
        temperature: Factor of the base's standard deviation, above 0; 1 samples the model itself.
        on_batch: Called with the number of samples done, after each batch.

    Returns:
        The samples, on the device of the flow.
    """
    generator = torch.Generator().manual_seed(seed)
    like = next(flow.bijection.parameters())
    z = torch.randn((count, *flow.base.event_shape), generator=generator, dtype=like.dtype).to(like.device)
    return invert(flow, temperature * z, on_batch=on_batch)


@torch.no_grad()
def invert(flow: Flow, z: Tensor, *, on_batch: Callable[[int], None] | None = None) -> Samples:
    """Invert a flow at given points of its base, in batches, and report for each.

    Args:
        flow: The distribution.
        z: Points with shape (n, *base event).
        on_batch: Called with the number of points done, after each batch.
    """
    values, converged, statuses = [], [], []
    for part in torch.split(z, BATCH):
        solution = flow.bijection.solve(part)
        values.append(solution.value)
        converged.append(solution.converged)
        statuses.append(solution.failures())
        if on_batch is not None:
            on_batch(len(part))
    return Samples(torch.cat(values), torch.cat(converged), ", ".join(filter(None, statuses)))
