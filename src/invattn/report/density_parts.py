"""The table and the training curves of a density run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from invattn.records import DensityRecord, DensityResult
from invattn.report import formatting, labels
from invattn.report.charts import Chart, Line, line_chart
from invattn.report.density_measure import Measure, measure_of
from invattn.report.parts import Panel, Part, kind_keys
from invattn.report.tables import NORMS

_SMOOTHING = 10


@dataclass(frozen=True, kw_only=True)
class DensityRow:
    """One line of the table; every field is ready to print."""

    kind: str
    label: str
    seed: str
    value: str
    error: str
    median: str
    outliers: str
    inverse: str
    radius: str
    bound: str
    parameters: str
    seconds: str
    refused: bool


def table_rows(record: DensityRecord) -> list[DensityRow]:
    """Return the table: one row for each training, in the usual order of kinds."""
    order = labels.in_order((kind_of(result) for result in record.results), labels.MIXERS)
    ordered = sorted(record.results, key=lambda result: (order.index(kind_of(result)), result.variant, result.seed))
    return [_row(result, measure_of(record)) for result in ordered]


def kind_of(result: DensityResult) -> str:
    """Return the attention of a result."""
    return str(result.extra.get("attention", result.variant.rpartition("-")[0]))


def recipe_of(result: DensityResult) -> str:
    """Return the recipe of a result."""
    return str(result.extra.get("recipe", result.variant.rpartition("-")[2]))


def name_of(result: DensityResult) -> str:
    """Return the reader's name of a variant."""
    return f"{labels.kind(kind_of(result))}, {labels.recipe(recipe_of(result)).lower()}"


def _row(result: DensityResult, measure: Measure) -> DensityRow:
    value = measure.of(result)
    metrics, certificate = result.metrics, result.certificate
    norm = "" if certificate is None else f" ({NORMS.get(str(certificate.get('norm')), '?')})"
    return DensityRow(
        kind=kind_of(result),
        label=name_of(result),
        seed=str(result.seed),
        value="refused" if value is None else f"{value:.3f}",
        error="" if metrics.standard_error is None else f"{metrics.standard_error:.3f}",
        median=f"{metrics.median:.3f}" if np.isfinite(metrics.median) else "not finite",
        outliers=formatting.count(metrics.outliers),
        inverse=formatting.scientific(metrics.inverse_error_max, digits=0)
        if np.isfinite(metrics.inverse_error_max) and metrics.inverse_error_max > 0
        else formatting.error(metrics.inverse_error_max),
        radius=f"{metrics.spectral_radius_max:.3f}",
        bound="none" if certificate is None else f"{formatting.bound(certificate.get('bound'))}{norm}",
        parameters=formatting.count(result.parameters),
        seconds=formatting.duration(result.cpu_seconds),
        refused=result.refused is not None,
    )


def training_curves(results: Sequence[DensityResult], measure: Measure) -> Part:
    """Training loss against the step, smoothed, one line for each training.

    Args:
        results: The trainings.
        measure: The unit of the axis.
    """
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
    keys = kind_keys([kind_of(result) for result in results])
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
