"""The unit in which a run of the density experiment reports -log p / d, and the subject of its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from invattn.records import DensityRecord, DensityResult

Subject = Literal["sets", "plane", "images"]


@dataclass(frozen=True)
class Measure:
    """A unit of -log p / d.

    Attributes:
        word: ``bits`` or ``nats``.
    """

    word: str

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


def measure_of(record: DensityRecord) -> Measure:
    """Return the unit of a record, which is that of all its results."""
    units = {result.metrics.unit for result in record.results}
    return Measure("bits" if "bits" in units else "nats")


def subject_of(record: DensityRecord) -> Subject:
    """Say what the samples are: images, points in the plane, or sets of points."""
    shape = record.data.get("event_shape")
    rank = len(shape) if isinstance(shape, list | tuple) else 0
    if rank == 3:
        return "images"
    return "plane" if rank == 1 or (rank == 0 and record.data.get("dimensions") == 2) else "sets"
