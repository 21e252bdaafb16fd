"""The page of a density run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from invattn._files import read_json
from invattn.experiments.density.page import images, points, tables
from invattn.experiments.density.page.headline import headline, stored_likelihoods
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
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.artifacts import Artifact
from invattn.experiments.kit.page.environment import render_page, write_page
from invattn.experiments.kit.page.parts import Part

_DESCRIPTIONS = {
    "sets": "Sets of 32 points in the plane around three random centres",
    "two-moons": "Two moons in the plane",
    "8-gaussians": "Eight Gaussians in the plane",
    "checkerboard": "A checkerboard in the plane",
}

_SHOWN = 36


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from ``results.json`` and ``artifacts/`` of a run's folder, and return its path.

    A part whose data the run did not store is left out, and the page says so and why.

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
    order = formatting.in_order((tables.kind_of(result) for result in record.results), formatting.MIXERS)
    ordered = sorted(record.results, key=lambda result: order.index(tables.kind_of(result)))
    pairs = dict.fromkeys((tables.kind_of(result), tables.recipe_of(result)) for result in ordered)
    stored = [Artifact(folder, attention=attention, recipe=recipe) for attention, recipe in pairs]
    subject, measure = subject_of(record), measure_of(record)
    return render_page(
        "density",
        f"density_{subject}.html",
        record=record,
        parts=[*_parts(subject, stored, measure), tables.training_curves(ordered, measure)],
        references=record.data.get("references") or {},
        subject=_subject(record),
        measure=measure,
        levels=record.data.get("levels") or 256,
        learned_noise=record.settings.get("dequantisation") == "variational",
        accuracy=_accuracy(record),
        headline=headline(record, stored_likelihoods(folder)),
        results=tables.table_rows(record),
        kind_of=tables.kind_of,
        name_of=tables.name_of,
        published=published_table(record) if subject == "images" else [],
        comparison=comparison_note(record) if subject == "images" else "",
        shown=_SHOWN,
        stopped=[
            f"{tables.name_of(result)}, seed {result.seed}: the training loss was not finite at step "
            f"{result.extra['stopped_at']}, first in {result.extra.get('stopped_in')}; nothing was measured."
            for result in record.results
            if result.extra.get("stopped_at") is not None
        ],
    )


def _parts(subject: Subject, stored: Sequence[Artifact], measure: Measure) -> list[Part]:
    if subject == "plane":
        return [points.plane_densities(stored)]
    if subject == "sets":
        return [points.sets_part(stored), points.conditionals_part(stored)]
    return [
        images.image_samples(stored),
        images.temperatures(stored),
        images.walks(stored),
        images.nearest(stored),
        images.block_effects(stored, unit=f"{measure.word}/dim", factor=measure.factor),
        images.receptive_fields(stored),
    ]


def _subject(record: DensityRecord) -> str:
    name = str(record.data.get("name"))
    if subject_of(record) == "images":
        return f"{formatting.dataset(name)} at {shape_words(record)} pixels"
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
