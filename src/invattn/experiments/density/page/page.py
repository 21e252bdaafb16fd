"""The page of a density run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from invattn.experiments.density.page import images, points, tables
from invattn.experiments.density.page.headline import headline, stored_likelihoods
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
    """Write ``report.html`` from ``results.json`` and ``artifacts/`` of a run's folder, as ``write_page`` does."""
    return write_page(folder / "report.html", render(DensityRecord.read(folder / "results.json"), folder=folder))


def render(record: DensityRecord, *, folder: Path) -> str:
    """Return the page of a run's results as text; the artifacts of the figures lie in ``folder``."""
    order = formatting.in_order((tables.kind_of(result) for result in record.results), formatting.MIXERS)
    ordered = sorted(record.results, key=lambda result: order.index(tables.kind_of(result)))
    pairs = dict.fromkeys((tables.kind_of(result), tables.recipe_of(result)) for result in ordered)
    stored = [Artifact(folder, attention=attention, recipe=recipe) for attention, recipe in pairs]
    subject, measure = tables.subject_of(record), tables.measure_of(record)
    name = str(record.data.get("name"))
    errors = [result.metrics.estimator_error for result in record.results]
    return render_page(
        "density",
        f"density_{subject}.html",
        record=record,
        parts=[*_parts(subject, stored, measure), tables.training_curves(ordered, measure)],
        references=record.data.get("references") or {},
        subject=f"{formatting.dataset(name)} at {tables.shape_words(record)} pixels"
        if subject == "images"
        else _DESCRIPTIONS.get(name, name),
        measure=measure,
        levels=record.data.get("levels") or 256,
        learned_noise=record.settings.get("dequantisation") == "variational",
        estimator_error=max((error for error in errors if np.isfinite(error)), default=0.0),
        headline=headline(record, stored_likelihoods(folder)),
        results=tables.table_rows(record),
        kind_of=tables.kind_of,
        name_of=tables.name_of,
        published=tables.published_table(record) if subject == "images" else [],
        comparison=tables.comparison_note(record) if subject == "images" else "",
        shown=_SHOWN,
    )


def _parts(subject: tables.Subject, stored: Sequence[Artifact], measure: tables.Measure) -> list[Part]:
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
