"""The page of a diagnosis: reads the folder of `invattn diagnose`, writes ``diagnose.html`` and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invattn._errors import DataError
from invattn._files import atomic_write
from invattn.experiments.diagnosis.page import parts
from invattn.experiments.diagnosis.record import DiagnosisRecord
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.artifacts import MissingPartError
from invattn.experiments.kit.page.environment import render_page, write_page


def write_diagnosis(folder: Path) -> list[Path]:
    """Write ``diagnose.html``, ``flagged.png`` and ``pairs.png`` from ``results.json`` and ``artifacts/`` of a folder.

    Returns the paths that were written, the page first: an older picture is removed where there is nothing to show.
    Raises DataError if the folder has no readable ``results.json`` of a diagnosis.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Give the folder that `invattn diagnose --output` wrote.")
    record = DiagnosisRecord.read(folder / "results.json")
    path = folder / "artifacts" / "diagnosis.npz"
    written = [write_page(folder / "diagnose.html", _render(record, path))]
    for name, sheet in (("flagged.png", parts.flagged_sheet), ("pairs.png", parts.pair_sheet)):
        try:
            atomic_write(folder / name, sheet(path))
        except MissingPartError:
            (folder / name).unlink(missing_ok=True)
        else:
            written.append(folder / name)
    return written


def _render(record: DiagnosisRecord, path: Path) -> str:
    summary = record.summary()
    kind, recipe = (str(record.model.get(name)) for name in ("attention", "recipe"))
    return render_page(
        "diagnosis",
        "diagnose.html",
        record=record,
        parts=(parts.histograms(record), parts.flagged(record, path), parts.pairs(record, path)),
        summary=summary,
        subject=f"{formatting.kind(kind)} attention, {formatting.recipe(recipe).lower()} recipe, on "
        f"{summary['images']:,} test images of {formatting.dataset(str(record.data.get('name')))}",
        headline=_headline(record, summary),
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
