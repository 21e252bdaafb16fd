"""The unit in which a training reports -log p."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """scale * l + offset, where l is -log p(x) / d in nats per dimension.

    Attributes:
        name: As it is shown, such as ``bits/dim``.
        scale: How many of the unit a nat is.
        offset: What it adds, in the unit, where the data were scaled before.
    """

    name: str
    scale: float = 1.0
    offset: float = 0.0

    def of(self, nats: float) -> float:
        """Return a value in nats per dimension in this unit."""
        return self.scale * nats + self.offset


NATS = Unit("nats/dim")


def bits(*, levels: int = 1) -> Unit:
    """Return bits per dimension of data with whole values, which the flow sees divided by ``levels``.

    p(x) = p(x / levels) / levels^d, so that every dimension costs log2(levels) more bits.

    Args:
        levels: Number of grey levels, such as 256; 1 where data were not scaled.
    """
    return Unit("bits/dim", scale=1 / math.log(2), offset=math.log2(levels))
