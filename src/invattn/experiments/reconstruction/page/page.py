"""The page of a run of reconstruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invattn.experiments.kit.page import formatting as labels
from invattn.experiments.kit.page.artifacts import Artifact
from invattn.experiments.kit.page.environment import page_environment, write_page
from invattn.experiments.kit.page.parts import Part
from invattn.experiments.reconstruction.page import diagrams, panels, strips, summary, tables
from invattn.experiments.reconstruction.record import ReconstructionRecord


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
    return write_page(folder / "report.html", render(ReconstructionRecord.read(folder / "results.json"), folder=folder))


def render(record: ReconstructionRecord, *, folder: Path) -> str:
    """Return the page as text.

    Args:
        record: The results to show.
        folder: Where the artifacts of the figures lie.
    """
    return page_environment("reconstruction").get_template("report.html").render(**_content(record, folder))


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
