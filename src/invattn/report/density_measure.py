"""The unit in which a run of the density experiment reports -log p / d, and the subject of its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from invattn.records import DensityRecord, DensityResult
from invattn.report.artifacts import Array

Subject = Literal["sets", "plane", "images"]


@dataclass(frozen=True)
class Measure:
    """A unit of -log p / d.

    Attributes:
        word: ``bits`` or ``nats``.
        offset: Nats per dimension to be added to -log p / d of what the flow takes: log of the number of grey levels
            where it takes (v + u) / levels and v + u is reported.
    """

    word: str
    offset: float = 0.0

    @property
    def factor(self) -> float:
        """What a difference in nats per dimension is multiplied by."""
        return 1 / math.log(2) if self.word == "bits" else 1.0

    @property
    def long(self) -> str:
        """``bits per dimension`` or ``nats per dimension``."""
        return f"{self.word} per dimension"

    def of(self, result: DensityResult) -> float | None:
        """Return the likelihood of a result in this unit, None where it is refused."""
        return result.metrics.per_dim

    def from_nats(self, values: Array) -> Array:
        """Return -log p / d of what the flow takes, in nats, in this unit."""
        return self.factor * (np.asarray(values, dtype=np.float64) + self.offset)


def measure_of(record: DensityRecord) -> Measure:
    """Return the unit of a record: bits for images, nats for points."""
    if subject_of(record) != "images":
        return Measure("nats")
    levels = record.data.get("levels")
    return Measure("bits", offset=math.log(levels if isinstance(levels, int) and levels > 1 else 256))


def subject_of(record: DensityRecord) -> Subject:
    """Say what the samples are: images, points in the plane, or sets of points."""
    shape = record.data.get("event_shape")
    rank = len(shape) if isinstance(shape, list | tuple) else 0
    if rank == 3:
        return "images"
    return "plane" if rank == 1 or (rank == 0 and record.data.get("dimensions") == 2) else "sets"
