"""The page of a density run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from invattn.records import DensityRecord, atomic_write
from invattn.report import density_parts, labels
from invattn.report.artifacts import Array, Artifact

_DESCRIPTIONS = {
    "sets": "Sets of 32 points in the plane around three random centres",
}


def render_density(record: DensityRecord, *, folder: Path) -> str:
    """Return the page as text.

    Args:
        record: The results to show.
        folder: Where the artifacts of the figures lie.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("invattn.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("density.html").render(**_content(record, folder))


def _content(record: DensityRecord, folder: Path) -> dict[str, Any]:
    order = labels.in_order((density_parts.kind_of(result) for result in record.results), labels.MIXERS)
    ordered = sorted(record.results, key=lambda result: order.index(density_parts.kind_of(result)))
    pairs = dict.fromkeys((density_parts.kind_of(result), density_parts.recipe_of(result)) for result in ordered)
    stored = [Artifact(folder, attention=attention, recipe=recipe) for attention, recipe in pairs]
    parts = [
        density_parts.training_curves(ordered),
        density_parts.sets_part(stored),
        density_parts.conditionals_part(stored),
    ]
    return {
        "record": record,
        "data": {key: record.data.get(key) for key in ("name", "train", "test", "dimensions", "notes")},
        "references": record.data.get("references") or {},
        "subject": _DESCRIPTIONS.get(str(record.data.get("name")), str(record.data.get("name"))),
        "headline": density_parts.headline(record),
        "rows": density_parts.table_rows(record),
        "stopped": _stopped(record),
        "settings": [(name, "default" if value is None else str(value)) for name, value in record.settings.items()],
        "parts": {part.anchor: part for part in parts},
    }


def _stopped(record: DensityRecord) -> list[str]:
    return [
        f"{density_parts.name_of(result)}, seed {result.seed}: the training loss was not finite at step "
        f"{result.extra['stopped_at']}, first in {result.extra.get('stopped_in')}; the model of the step before was "
        "evaluated."
        for result in record.results
        if result.extra.get("stopped_at") is not None
    ]


def write_samples(folder: Path, sets: Array) -> Path:
    """Write sampled point sets as ``samples.npy`` and as the picture ``samples.png``, and return its path.

    Args:
        folder: Where the files go; it is made if it is missing.
        sets: Shape (n, N, 2).

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = io.BytesIO()
    np.save(values, sets, allow_pickle=False)
    atomic_write(folder / "samples.npy", values.getvalue())
    picture = io.BytesIO()
    columns = min(4, len(sets))
    rows = -(-len(sets) // columns)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(2.4 * columns, 2.4 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            axes.set_axis_off()
            if number < len(sets):
                axes.scatter(sets[number, :, 0], sets[number, :, 1], s=6, linewidths=0)
                axes.set(xlim=(-6.5, 6.5), ylim=(-6.5, 6.5), aspect="equal")
        figure.savefig(picture, format="png", dpi=110)
    path = folder / "samples.png"
    atomic_write(path, picture.getvalue())
    return path
