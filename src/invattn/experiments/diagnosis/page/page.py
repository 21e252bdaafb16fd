"""The page of a diagnosis: reads the folder of `invattn diagnose`, writes ``diagnose.html`` and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invattn._errors import DataError
from invattn._files import atomic_write
from invattn.experiments.diagnosis.page import parts
from invattn.experiments.diagnosis.page.parts import DiagnosisArtifact
from invattn.experiments.diagnosis.record import DiagnosisRecord
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.environment import render_page, write_page
from invattn.experiments.kit.page.parts import Tile


def write_diagnosis(folder: Path) -> list[Path]:
    """Write ``diagnose.html``, ``flagged.png`` and ``pairs.png`` from ``results.json`` and ``artifacts/`` of a folder.

    The page needs nothing else. A picture is written where there is something to show; an older one is removed where
    there is nothing.

    Args:
        folder: The output folder of ``invattn diagnose``.

    Returns:
        The paths that were written, the page first.

    Raises:
        DataError: If the folder has no readable ``results.json`` of a diagnosis.
        OSError: If a file cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Give the folder that `invattn diagnose --output` wrote.")
    record = DiagnosisRecord.read(folder / "results.json")
    artifact = DiagnosisArtifact(folder / "artifacts" / "diagnosis.npz")
    written = [write_page(folder / "diagnose.html", render_diagnosis(record, artifact))]
    for name, sheet in (("flagged.png", artifact.flagged_sheet()), ("pairs.png", artifact.pair_sheet())):
        if sheet is None:
            (folder / name).unlink(missing_ok=True)
            continue
        atomic_write(folder / name, sheet)
        written.append(folder / name)
    return written


def render_diagnosis(record: DiagnosisRecord, artifact: DiagnosisArtifact) -> str:
    """Return the page as text.

    Args:
        record: The results to show.
        artifact: The stored pictures.
    """
    summary = record.summary()
    kind, recipe = (str(record.model.get(name)) for name in ("attention", "recipe"))
    return render_page(
        "diagnosis",
        "diagnose.html",
        record=record,
        parts=(parts.histograms(record), parts.flagged(record, artifact), parts.pairs(record, artifact)),
        summary=summary,
        subject=f"{formatting.kind(kind)} attention, {formatting.recipe(recipe).lower()} recipe, on "
        f"{summary['images']:,} test images of {formatting.dataset(str(record.data.get('name')))}",
        headline=_headline(record, summary),
        tiles=[
            Tile(value=str(summary["flagged"]), label="images flagged"),
            Tile(value=str(summary["lost"]), label="images lost by the inverse"),
            Tile(value=str(summary["second_preimages"]), label="second preimages found"),
            Tile(value=str(summary["pairs"]), label="visibly different pairs with one output"),
        ],
        rows=_rows(summary),
        bound=formatting.certificate(record.model.get("certificate")),
        lost_from=f"{record.model['lost_from']:g}",
        settings={name: "all" if value is None else str(value) for name, value in record.settings.items()},
        seconds={name: formatting.duration(value) for name, value in record.seconds.items()},
    )


def _headline(record: DiagnosisRecord, summary: dict[str, Any]) -> list[str]:
    if summary["pairs"]:
        pairs = (
            f"{summary['pairs']} of {summary['images']} test images share their output with a visibly different input."
        )
        first = f"This block is not invertible: {pairs}"
    elif summary["second_preimages"]:
        first = (
            "This block is not invertible: a second input with the same output was found, though not a visibly "
            "different one."
        )
    elif record.model.get("certificate") is not None:
        first = "This block has a certificate: no two inputs share an output, and the search found none."
    else:
        first = "No two inputs with one output were found. That is no proof: only a certificate is."
    if not summary["lost"]:
        return [first, f"The inverse returned every image; {summary['flagged']} were flagged."]
    caught = (
        f"{summary['lost_and_flagged']} of the {summary['lost']} images that the inverse lost were flagged beforehand"
    )
    precision = formatting.share(summary["precision"], decimals=1)
    return [first, f"{caught}; of those flagged, {precision} were lost."]


def _rows(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the counts: what, how many, and what it means."""
    computed = summary["det_computed"]
    negative = str(summary["det_negative"]) if computed else formatting.MISSING
    recall, precision = (formatting.share(summary[name], decimals=1) for name in ("recall", "precision"))
    return [
        ("flagged", str(summary["flagged"]), "for any of the three reasons that follow"),
        ("repelling", str(summary["repelling"]), "spectral radius above 1: the fixed-point inverse moves away"),
        ("slow", str(summary["slow"]), "radius so near 1, there or on the way, that the steps do not suffice"),
        ("competing", str(summary["competing"]), "another input with the same output draws the inverse to itself"),
        ("second preimages", str(summary["second_preimages"]), "other inputs with the same output, competing or not"),
        ("pairs", str(summary["pairs"]), "of these, 2 grey levels or more apart, outputs within 10⁻⁵"),
        (
            "det(I + J) < 0",
            negative,
            f"folded over; computed for {computed} images" if computed else "not asked for (--det)",
        ),
        ("lost", str(summary["lost"]), "the inverse returned another image"),
        ("recall", recall, "share of the lost images that were flagged"),
        ("precision", precision, "share of the flagged images that were lost"),
    ]
