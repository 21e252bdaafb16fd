"""The first pass of data through a flow whose front is fitted to all of them."""

from __future__ import annotations

from itertools import takewhile

import torch
from torch import Tensor

from invattn.bijections import Bijection, DataDependent, ResidualBijection, initialize

_CHUNK = 500
FEW = 256
"""How many samples start the layers between residual blocks."""


@torch.no_grad()
def start_from_data(bijection: Bijection, x: Tensor, *, few: int = FEW) -> int:
    """Start every layer that starts from data: those before the first residual block from all data, others from a few.

    Whitening and the splines and histograms beside it are fitted once and want every sample; between residual blocks
    a few hundred are enough, and a pass of all through the blocks would cost as much as training.

    Args:
        bijection: The map, usually a chain; layers that were started before are left alone.
        x: All training samples with shape (n, ...), in random order or not.
        few: How many samples, taken evenly from ``x``, start the layers after the first residual block.

    Returns:
        How many layers were started.
    """
    started = 0
    reached = x
    for part in front_of(bijection):
        if isinstance(part, DataDependent) and not part.is_fitted:
            part.fit(reached)
            started += 1
        reached = torch.cat([part(chunk) for chunk in torch.split(reached, _CHUNK)])
    some = torch.linspace(0, len(x) - 1, min(few, len(x)), device=x.device).long()
    return started + initialize(bijection, x[some])


def front_of(bijection: Bijection) -> tuple[Bijection, ...]:
    """Return the parts of a chain before the first that holds a residual block."""
    return tuple(takewhile(_holds_no_block, bijection.parts()))


def _holds_no_block(part: Bijection) -> bool:
    return not any(isinstance(inner, ResidualBijection) for inner in part.modules())
