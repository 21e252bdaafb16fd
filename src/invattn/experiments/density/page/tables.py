"""What the results of a density run are called, its tables, and its training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from invattn.experiments.density.record import DensityRecord, DensityResult
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.charts import Chart, Line, line_chart
from invattn.experiments.kit.page.parts import Panel, Part, kind_keys
from invattn.experiments.kit.record import published_rows

Subject = Literal["sets", "plane", "images"]

PUBLISHED_TRAINING = 50_000
"""Training images of CIFAR-10, which the published figures are of."""

_SMOOTHING = 10
_MODELS = {
    "none": "i-ResNet",
    "dot_product": "i-ResNet + Dot-product attention",
    "concatenation": "i-ResNet + Concatenation attention",
}


@dataclass(frozen=True)
class Measure:
    """A unit of -log p / d; its word is ``bits`` or ``nats``."""

    word: str

    @property
    def factor(self) -> float:
        """What a difference in nats per dimension is multiplied by."""
        return 1 / math.log(2) if self.word == "bits" else 1.0

    @property
    def long(self) -> str:
        """``bits per dimension`` or ``nats per dimension``."""
        return f"{self.word} per dimension"


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


def table_rows(record: DensityRecord) -> list[DensityResult]:
    """Return the trainings in the order of the table: in the usual order of kinds."""
    order = formatting.in_order(map(kind_of, record.results), formatting.MIXERS)
    return sorted(record.results, key=lambda result: (order.index(kind_of(result)), result.variant, result.seed))


def kind_of(result: DensityResult) -> str:
    """Return the attention of a result."""
    return str(result.extra.get("attention", result.variant.rpartition("-")[0]))


def recipe_of(result: DensityResult) -> str:
    """Return the recipe of a result."""
    return str(result.extra.get("recipe", result.variant.rpartition("-")[2]))


def name_of(result: DensityResult) -> str:
    """Return the reader's name of a variant."""
    return formatting.variant(kind_of(result), recipe_of(result))


def training_curves(results: Sequence[DensityResult], measure: Measure) -> Part:
    """Training loss against the step, smoothed, one line for each training."""
    lines = []
    for result in results:
        loss = np.asarray(result.train_loss, dtype=np.float64)
        width = min(_SMOOTHING, len(loss))
        if width:
            smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
            steps = np.arange(width, len(loss) + 1)
            lines.append(Line(x=steps, y=smooth, role=kind_of(result), dashed=bool(result.extra.get("repeat"))))
    chart = Chart(
        name="density-training",
        description=f"training loss in {measure.long} against the step, for each variant",
        x_label="training step",
        y_label=f"−log p / d ({measure.word})",
        y_limits=_limits(lines),
        size=(6.4, 3.6),
    )
    keys = kind_keys(map(kind_of, results))
    if not lines:
        return Part(anchor="training", left_out=("No training losses were stored.",))
    return Part(anchor="training", panels=(Panel(title="All variants", svg=line_chart(lines, chart)),), keys=keys)


def _limits(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Leave out the first tenth of the steps, where a start from scratch would flatten the rest."""
    late = [np.asarray(line.y)[len(line.y) // 10 :] for line in lines]
    values = np.concatenate([part[np.isfinite(part)] for part in late] or [np.ones(1)])
    if values.size == 0:
        return None
    low, high = float(values.min()), float(values.max())
    room = 0.05 * max(high - low, 0.1)
    return low - room, high + room


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One model; every field is ready to print, empty where there is no figure."""

    kind: str
    label: str
    published: str
    ours: str


def published_table(record: DensityRecord) -> list[PublishedRow]:
    """Return Table 3 of the paper, our certified variants beside the models they stand for, and then all others.

    Ours are means over the seeds that were not refused.
    """
    groups: dict[tuple[str, str], list[float | None]] = {}
    names: dict[tuple[str, str], str] = {}
    for result in record.results:
        key = (kind_of(result), result.variant)
        groups.setdefault(key, []).append(result.metrics.per_dim)
        names[key] = name_of(result)
    shown = {key: _mean(values) for key, values in groups.items()}
    rows, used = [], set()
    for published in published_rows("table3"):
        kind = next((kind for kind, model in _MODELS.items() if model == published["model"]), "")
        key = (kind, f"{kind}-certified")
        used.add(key)
        row = PublishedRow(
            kind=kind, label=published["model"], published=published["bits_per_dim"], ours=shown.get(key, "")
        )
        rows.append(row)
    kinds = formatting.in_order((kind for kind, _ in shown), formatting.MIXERS)
    rest = sorted((key for key in shown if key not in used), key=lambda key: (kinds.index(key[0]), key[1]))
    return [*rows, *(PublishedRow(kind=key[0], label=names[key], published="", ours=shown[key]) for key in rest)]


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "refused"


def comparison_note(record: DensityRecord) -> str:
    """Say whether our figures are of the data that the published ones are of."""
    name, train, dimensions = (record.data.get(key) for key in ("name", "train", "dimensions"))
    if name == "cifar10" and dimensions == 3 * 32 * 32 and isinstance(train, int) and train >= PUBLISHED_TRAINING:
        return "Both are of CIFAR-10 at 32×32 with all 50,000 training images."
    count = f"{train:,}" if isinstance(train, int) else "other"
    return (
        f"The two columns must not be compared: the published figures are of CIFAR-10 at 32×32 with 50,000 training "
        f"images, ours of {formatting.dataset(str(name))} at {shape_words(record)} with {count} training images."
    )


def shape_words(record: DensityRecord) -> str:
    """Return the size of an image, such as ``16×16``."""
    shape = record.data.get("event_shape") or ()
    return "×".join(str(side) for side in shape[1:]) if len(shape) == 3 else "another size"
