"""Which samples of a batch over several processes one process has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """One of several equal, consecutive parts of a batch.

    Random numbers that belong to samples are drawn for the whole batch, and each process keeps those of its own
    samples: where all start from the same generator state, a sample gets the same numbers however many processes share
    the batch, and every process leaves its generator in the same state.

    Attributes:
        part: Which part, 0 .. ``parts`` - 1.
        parts: How many.

    Raises:
        ValueError: If ``part`` is not one of them.
    """

    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise ValueError(f"part must be between 0 and parts - 1 = {self.parts - 1}; got {self.part}.")

    def draw(self, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """Return the rows of this part.

        Args:
            shape: Of this part, samples first: (B, ...).
            draw: Returns random numbers of a shape; asked for those of the whole batch, (``parts`` B, ...).
        """
        size = shape[0]
        return draw((self.parts * size, *shape[1:]))[self.part * size : (self.part + 1) * size]


WHOLE = Shard()
"""The part of a process that has every sample."""
