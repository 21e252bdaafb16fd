"""The parts of the page of a density run: table, training curves, samples, and conditional densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from invattn.records import DensityRecord, DensityResult
from invattn.report import formatting, labels, svg
from invattn.report.artifacts import Array, Artifact, MissingPartError, collect
from invattn.report.charts import Chart, Line, line_chart
from invattn.report.parts import Key, Panel, Part, kind_keys
from invattn.report.tables import NORMS

_MASSES = (0.3, 0.6, 0.9, 0.99)
_SMOOTHING = 10
_SET_REACH = 6.5


@dataclass(frozen=True, kw_only=True)
class DensityRow:
    """One line of the table; every field is ready to print."""

    kind: str
    label: str
    seed: str
    nats: str
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
    return [_row(result) for result in ordered]


def kind_of(result: DensityResult) -> str:
    """Return the attention of a result."""
    return str(result.extra.get("attention", result.variant.rpartition("-")[0]))


def recipe_of(result: DensityResult) -> str:
    """Return the recipe of a result."""
    return str(result.extra.get("recipe", result.variant.rpartition("-")[2]))


def name_of(result: DensityResult) -> str:
    """Return the reader's name of a variant."""
    return f"{labels.kind(kind_of(result))}, {labels.recipe(recipe_of(result)).lower()}"


def _row(result: DensityResult) -> DensityRow:
    metrics, certificate = result.metrics, result.certificate
    norm = "" if certificate is None else f" ({NORMS.get(str(certificate.get('norm')), '?')})"
    return DensityRow(
        kind=kind_of(result),
        label=name_of(result),
        seed=str(result.seed),
        nats="refused" if metrics.per_dim is None else f"{metrics.per_dim:.3f}",
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


def headline(record: DensityRecord) -> list[str]:
    """Say what came out: each attention, and by how much it beats or misses the control without mixing."""
    sentences = []
    control = [result for result in record.results if kind_of(result) == "pointwise" and _nats(result) is not None]
    for result in record.results:
        value = _nats(result)
        if kind_of(result) in ("pointwise", "uniform", "none") or value is None:
            continue
        sentence = f"{name_of(result)}: {value:.3f} nats per dimension (seed {result.seed})"
        same = [_nats(other) for other in control if other.seed == result.seed]
        if same and same[0] is not None:
            gain = same[0] - value
            word = "less" if gain > 0 else "more"
            sentence += f", {abs(gain):.3f} {word} than the control whose points do not see each other"
        sentences.append(f"{sentence}.")
    refused = [f"{name_of(r)}: no likelihood, because {r.refused}." for r in record.results if r.refused]
    return [*sentences, *refused] or ["Controls only: no attention was trained."]


def _nats(result: DensityResult) -> float | None:
    return result.metrics.per_dim


def training_curves(results: Sequence[DensityResult]) -> Part:
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
        description="training loss in nats per dimension against the step, for each variant",
        x_label="training step",
        y_label="−log p / d (nats)",
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


def sets_part(artifacts: Sequence[Artifact]) -> Part:
    """Sets of the data, and sets sampled from each flow."""
    built, left_out = collect(artifacts, lambda artifact: artifact.take("real_sets", "sampled_sets"))
    panels = []
    if built:
        panels.append(Panel(title="Data: test sets", svg=_scatter(built[0][1][0], "muted", "data")))
    for artifact, (_, sampled) in built:
        chart = _scatter(sampled, artifact.attention, f"{artifact.attention}-{artifact.recipe}")
        panels.append(Panel(title=f"Samples: {artifact.label}", svg=chart))
    return Part(anchor="samples", panels=tuple(panels), left_out=tuple(left_out))


def _scatter(sets: Array, role: str, name: str) -> Markup:
    """Draw several sets, each in a square of its own within one pair of axes."""
    if sets.shape[-1] != 2:
        raise MissingPartError("the stored sets are not in the plane")
    columns = 3
    width = 2 * _SET_REACH

    def paint(axes: Axes) -> None:
        rows = -(-len(sets) // columns)
        for number, points in enumerate(sets):
            row, column = divmod(number, columns)
            inside = np.abs(points).max(axis=1) < _SET_REACH
            place = points[inside] + np.array([column * width, -row * width])
            axes.scatter(place[:, 0], place[:, 1], s=5, color=svg.colour(role), linewidths=0)
        for line in range(1, columns):
            axes.axvline(line * width - _SET_REACH, color=svg.colour("grid"), linewidth=1)
        for line in range(1, rows):
            axes.axhline(-line * width + _SET_REACH, color=svg.colour("grid"), linewidth=1)
        axes.set_xlim(-_SET_REACH, columns * width - _SET_REACH)
        axes.set_ylim(_SET_REACH - rows * width, _SET_REACH)
        _bare(axes)

    height = -(-len(sets) // columns) / columns
    return svg.draw(paint, name=f"sets-{name}", description=f"point sets: {name}", size=(4.6, 4.6 * height + 0.4))


def conditionals_part(artifacts: Sequence[Artifact]) -> Part:
    """Where one further point is expected after some points of a set have arrived."""

    def build(artifact: Artifact) -> list[Panel]:
        names = ("conditional", "conditional_points", "conditional_arrived", "conditional_reach")
        densities, points, arrived, reach = artifact.take(*names)
        if len(densities) != len(arrived) or points.shape[-1] != 2 or len(points) < max(arrived):
            raise MissingPartError("the stored arrays do not fit together")
        return [
            Panel(
                title=f"{artifact.label}, {int(count)} points",
                svg=_contours(density, points[: int(count)], float(reach[0]), f"{artifact.attention}-{int(count)}"),
            )
            for density, count in zip(densities, arrived, strict=True)
        ]

    built, left_out = collect(artifacts, build)
    keys = [
        Key(role=f"step{4 - rank}", label=f"{mass:.0%} of the probability lies within")
        for rank, mass in enumerate(_MASSES)
    ]
    return Part(
        anchor="conditional",
        panels=tuple(panel for _, panels in built for panel in panels),
        keys=tuple(keys) if built else (),
        left_out=tuple(left_out),
    )


def _contours(log_density: Array, points: Array, reach: float, name: str) -> Markup:
    side = np.linspace(-reach, reach, log_density.shape[-1])
    levels = mass_levels(log_density)

    def paint(axes: Axes) -> None:
        for rank, level in enumerate(levels):
            colour = svg.colour(f"step{4 - rank}")
            if np.isfinite(level) and log_density.min() < level < log_density.max():
                axes.contour(side, side, log_density, levels=[level], colors=[colour], linewidths=1.4, linestyles="-")
        axes.scatter(points[:, 0], points[:, 1], s=9, color=svg.colour("ink"), linewidths=0)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        _bare(axes)

    return svg.draw(
        paint,
        name=f"conditional-{name}",
        description=f"density of one further point after {len(points)} points of a set",
        size=(3.4, 3.26),
    )


def mass_levels(log_density: Array) -> list[float]:
    """Return the levels above which 30, 60, 90 and 99 per cent of the probability on a grid lie, highest first."""
    flat = np.sort(np.ravel(np.asarray(log_density, dtype=np.float64)))[::-1]
    weights = np.exp(flat - flat[0])
    share = np.cumsum(weights) / weights.sum()
    return [float(flat[min(int(np.searchsorted(share, mass)), len(flat) - 1)]) for mass in _MASSES]


def _bare(axes: Axes) -> None:
    axes.set_aspect("equal", adjustable="box")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
