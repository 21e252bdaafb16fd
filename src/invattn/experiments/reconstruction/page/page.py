"""The page of a run of reconstruction."""

from __future__ import annotations

from pathlib import Path

from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.artifacts import Artifact
from invattn.experiments.kit.page.environment import render_page, write_page
from invattn.experiments.kit.page.parts import Part
from invattn.experiments.reconstruction.page import panels, strips, summary, tables
from invattn.experiments.reconstruction.record import ReconstructionRecord


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from ``results.json`` and ``artifacts/`` of a run's folder, and return its path.

    A part whose data the run did not store is left out, and the page says so and why.

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
    headers, context_rows = tables.context(record)
    recipes = formatting.in_order((result.recipe for result in record.results), formatting.RECIPES)
    explained = (name for name in recipes if name in formatting.GLOSSARY)
    datasets = dict.fromkeys((result.dataset, str(result.image_size)) for result in record.results)
    return render_page(
        "reconstruction",
        "report.html",
        record=record,
        parts=_parts(record, folder),
        subject=", ".join(f"{formatting.dataset(name)} {formatting.size(size)}" for name, size in datasets),
        headline=summary.headline(record),
        tiles=summary.tiles(record),
        groups=tables.groups(record),
        published_cells=tables.published_cells,
        remarks=tables.remarks(record),
        published=tables.has_published(record),
        context_datasets=headers,
        context_rows=context_rows,
        glossary={formatting.recipe(name): formatting.GLOSSARY[name] for name in explained},
    )


def _parts(record: ReconstructionRecord, folder: Path) -> list[Part]:
    recipes = formatting.in_order((result.recipe for result in record.results), formatting.RECIPES)
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
