"""The report of a run: reads the run's folder, writes one self-contained HTML page into it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jinja2

from invattn._errors import DataError
from invattn.records import (
    CamouflageRecord,
    DensityRecord,
    ReconstructionRecord,
    atomic_write,
    is_camouflage,
    is_density,
    read_json,
    read_record,
)
from invattn.report import diagrams, labels, panels, strips, summary, tables
from invattn.report.artifacts import Artifact
from invattn.report.camouflage_page import render_camouflage
from invattn.report.density_page import render_density
from invattn.report.parts import Part

_LOG = logging.getLogger(__name__)


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from ``results.json`` and ``artifacts/`` of a run's folder.

    The page needs nothing else: its style, charts and pictures stand inside it. A part whose data the run did not store
    is left out, and the page says so and why.

    Args:
        folder: The output folder of ``invattn reconstruct``, ``invattn density train`` or ``invattn camouflage train``.

    Returns:
        The page's path.

    Raises:
        DataError: If the folder has no readable ``results.json``.
        OSError: If the page cannot be written; an older page then stays as it is.
    """
    folder = Path(folder)
    path = folder / "report.html"
    atomic_write(path, render_any(read_any(folder), folder=folder).encode("utf-8"))
    _LOG.info("wrote %s", path)
    return path


def read_any(folder: Path) -> ReconstructionRecord | DensityRecord | CamouflageRecord:
    """Read the record of a run of any experiment.

    Raises:
        DataError: If the folder has no readable ``results.json``.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Give the folder that `invattn reconstruct --output` wrote.")
    results = folder / "results.json"
    value = read_json(results)
    try:
        if is_density(value):
            return DensityRecord.from_json(value)
        if is_camouflage(value):
            return CamouflageRecord.from_json(value)
    except DataError as error:
        raise DataError(f"{results}: {error}") from None
    return read_record(results)


def render_any(record: ReconstructionRecord | DensityRecord | CamouflageRecord, *, folder: Path) -> str:
    """Return the page of a run of any experiment as text.

    Args:
        record: The results to show.
        folder: Where the artifacts of the figures lie.
    """
    if isinstance(record, DensityRecord):
        return render_density(record, folder=folder)
    if isinstance(record, CamouflageRecord):
        return render_camouflage(record, folder=folder)
    return render(record, folder=folder)


def render(record: ReconstructionRecord, *, folder: Path) -> str:
    """Return the page as text.

    Args:
        record: The results to show.
        folder: Where the artifacts of the figures lie.
    """
    return page_environment().get_template("report.html").render(**_content(record, folder))


def page_environment() -> jinja2.Environment:
    """Return the templates of all pages; what is undefined in one is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("invattn.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _content(record: ReconstructionRecord, folder: Path) -> dict[str, Any]:
    headers, context_rows = tables.context(record)
    recipes = labels.in_order((result.recipe for result in record.results), labels.RECIPES)
    datasets = dict.fromkeys((result.dataset, str(result.image_size)) for result in record.results)
    return {
        "record": record,
        "data": {key: record.data.get(key) for key in ("name", "fingerprint", "train", "test", "notes")},
        "subject": ", ".join(f"{labels.dataset(name)} {labels.size(size)}" for name, size in datasets),
        "headline": summary.headline(record),
        "tiles": summary.tiles(record),
        "groups": tables.groups(record),
        "remarks": tables.remarks(record),
        "published": tables.has_published(record),
        "context_datasets": headers,
        "context_rows": context_rows,
        "settings": [(name, _setting(value)) for name, value in record.settings.items()],
        "parts": {part.anchor: part for part in _parts(record, folder)},
        "plain_block": diagrams.plain_block(),
        "certified_block": diagrams.certified_block(),
        "glossary": [(labels.recipe(name), labels.GLOSSARY[name]) for name in recipes if name in labels.GLOSSARY],
    }


def _setting(value: Any) -> str:
    if value is None:
        return "default"
    return ", ".join(str(entry) for entry in value) if isinstance(value, list) else str(value)


def _parts(record: ReconstructionRecord, folder: Path) -> list[Part]:
    recipes = labels.in_order((result.recipe for result in record.results), labels.RECIPES)
    ordered = sorted(tables.in_kind_order(record.results), key=lambda result: recipes.index(result.recipe))
    pairs = dict.fromkeys((result.attention, result.recipe) for result in ordered)
    stored = [Artifact(folder, attention=attention, recipe=recipe) for attention, recipe in pairs]
    return [
        strips.reconstructions(stored),
        strips.error_maps(stored),
        panels.distributions(stored),
        panels.residuals(stored),
        panels.lipschitz_curves(stored),
        strips.attention_maps(stored),
        panels.losses(stored, record.results),
    ]
