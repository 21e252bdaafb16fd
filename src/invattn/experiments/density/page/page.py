"""The page of a density run."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from invattn._files import atomic_write, read_json
from invattn.experiments.density.page import images as density_block_parts
from invattn.experiments.density.page import images as density_image_parts
from invattn.experiments.density.page import points as density_set_parts
from invattn.experiments.density.page import tables as density_parts
from invattn.experiments.density.page.headline import headline, stored_likelihoods
from invattn.experiments.density.page.points import plane_densities
from invattn.experiments.density.page.tables import (
    Measure,
    Subject,
    comparison_note,
    measure_of,
    published_table,
    shape_words,
    subject_of,
)
from invattn.experiments.density.record import DensityRecord
from invattn.experiments.kit.page import formatting as labels
from invattn.experiments.kit.page.artifacts import Array, Artifact
from invattn.experiments.kit.page.environment import page_environment, write_page
from invattn.experiments.kit.page.parts import Part

_DESCRIPTIONS = {
    "sets": "Sets of 32 points in the plane around three random centres",
    "two-moons": "Two moons in the plane",
    "8-gaussians": "Eight Gaussians in the plane",
    "checkerboard": "A checkerboard in the plane",
}

_SHOWN = 36


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from ``results.json`` and ``artifacts/`` of a run's folder.

    The page needs nothing else: its style, charts and pictures stand inside it. A part whose data the run did not store
    is left out, and the page says so and why.

    Returns:
        The page's path.

    Raises:
        DataError: If the folder has no readable ``results.json``.
        OSError: If the page cannot be written; an older page then stays as it is.
    """
    return write_page(
        folder / "report.html",
        render_density(DensityRecord.from_json(read_json(folder / "results.json")), folder=folder),
    )


def render_density(record: DensityRecord, *, folder: Path) -> str:
    """Return the page as text.

    Args:
        record: The results to show.
        folder: Where the artifacts of the figures lie.
    """
    environment = page_environment("density")
    return environment.get_template("density.html").render(**_content(record, folder))


def _content(record: DensityRecord, folder: Path) -> dict[str, Any]:
    order = labels.in_order((density_parts.kind_of(result) for result in record.results), labels.MIXERS)
    ordered = sorted(record.results, key=lambda result: order.index(density_parts.kind_of(result)))
    pairs = dict.fromkeys((density_parts.kind_of(result), density_parts.recipe_of(result)) for result in ordered)
    stored = [Artifact(folder, attention=attention, recipe=recipe) for attention, recipe in pairs]
    subject, measure = subject_of(record), measure_of(record)
    parts = [*_PARTS[subject](stored, measure), density_parts.training_curves(ordered, measure)]
    return {
        "record": record,
        "data": {key: record.data.get(key) for key in ("name", "train", "test", "dimensions", "notes")},
        "references": record.data.get("references") or {},
        "subject": _subject(record),
        "subject_kind": subject,
        "measure": measure,
        "levels": record.data.get("levels") or 256,
        "learned_noise": record.settings.get("dequantisation") == "variational",
        "accuracy": _accuracy(record),
        "contents": _CONTENTS[subject],
        "headline": headline(record, stored_likelihoods(folder)),
        "rows": density_parts.table_rows(record),
        "published": published_table(record) if subject == "images" else [],
        "comparison": comparison_note(record) if subject == "images" else "",
        "shown": _SHOWN,
        "stopped": _stopped(record),
        "settings": [(name, "default" if value is None else str(value)) for name, value in record.settings.items()],
        "parts": {part.anchor: part for part in parts},
    }


def _image_parts(stored: Sequence[Artifact], measure: Measure) -> list[Part]:
    return [
        density_image_parts.image_samples(stored),
        density_image_parts.temperatures(stored),
        density_image_parts.walks(stored),
        density_image_parts.nearest(stored),
        density_block_parts.block_effects(stored, unit=f"{measure.word}/dim", factor=measure.factor),
        density_block_parts.receptive_fields(stored),
    ]


def _set_parts(stored: Sequence[Artifact], measure: Measure) -> list[Part]:
    return [density_set_parts.sets_part(stored), density_set_parts.conditionals_part(stored)]


def _plane_parts(stored: Sequence[Artifact], measure: Measure) -> list[Part]:
    return [plane_densities(stored)]


_PARTS: dict[Subject, Callable[[Sequence[Artifact], Measure], list[Part]]] = {
    "images": _image_parts,
    "sets": _set_parts,
    "plane": _plane_parts,
}

_HEAD, _TAIL = (("table", "Results"),), (("training", "Training"), ("run", "This run"))
_CONTENTS: dict[Subject, tuple[tuple[str, str], ...]] = {
    "images": (
        *_HEAD,
        *(("table3", "Published"), ("samples", "Samples"), ("temperatures", "Temperatures"), ("walks", "Walks")),
        *(("nearest", "Nearest"), ("blocks", "Blocks"), ("fields", "Receptive field")),
        *_TAIL,
    ),
    "sets": (*_HEAD, ("conditional", "One further point"), ("samples", "Samples"), *_TAIL),
    "plane": (*_HEAD, ("plane", "Density and samples"), *_TAIL),
}


def _subject(record: DensityRecord) -> str:
    name = str(record.data.get("name"))
    if subject_of(record) == "images":
        return f"{labels.dataset(name)} at {shape_words(record)} pixels"
    return _DESCRIPTIONS.get(name, name)


def _accuracy(record: DensityRecord) -> str:
    errors = [result.metrics.estimator_error for result in record.results]
    largest = max((error for error in errors if np.isfinite(error)), default=0.0)
    if largest == 0:
        return "Log-determinants are exact."
    return (
        "Log-determinants are estimated without bias; their random probes add a standard error of at most "
        f"{largest:.2g} to the mean."
    )


def _stopped(record: DensityRecord) -> list[str]:
    return [
        f"{density_parts.name_of(result)}, seed {result.seed}: the training loss was not finite at step "
        f"{result.extra['stopped_at']}, first in {result.extra.get('stopped_in')}; nothing was measured."
        for result in record.results
        if result.extra.get("stopped_at") is not None
    ]


def write_samples(folder: Path, sets: Array) -> Path:
    """Write sampled point sets as ``samples.npy`` and as the picture ``samples.png``, and return its path.

    Args:
        folder: Where the files go; it is made if it is missing.
        sets: Shape (n, N, 2), or (N, 2) for one picture of points.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = io.BytesIO()
    np.save(values, sets, allow_pickle=False)
    atomic_write(folder / "samples.npy", values.getvalue())
    sets = sets[None] if sets.ndim == 2 else sets
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
