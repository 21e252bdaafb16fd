"""One page about several runs: the paper's tables beside all of them, then the page of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from invattn._errors import DataError
from invattn._files import read_json
from invattn.experiments.camouflage.page import page as camouflage
from invattn.experiments.camouflage.record import CamouflageRecord
from invattn.experiments.density.page import page as density
from invattn.experiments.density.record import DensityRecord
from invattn.experiments.kit.page.environment import render_page, write_page
from invattn.experiments.merged.overview import Record, overview
from invattn.experiments.reconstruction.page import page as reconstruction
from invattn.experiments.reconstruction.record import ReconstructionRecord

_RENDER = {
    ReconstructionRecord: reconstruction.render,
    DensityRecord: density.render,
    CamouflageRecord: camouflage.render,
}
_FIGURES: dict[type, dict[str, str]] = {
    ReconstructionRecord: {"reconstructions": "Fig. 3 and 4: reconstructions", "constants": "error against steps"},
    DensityRecord: {"samples": "Fig. 5: samples"},
    CamouflageRecord: {"curves": "Fig. 6: F and E curves", "maps": "Fig. 7: maps"},
}
"""Sections of the pages that hold figures of the paper."""


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
    return write_page(folder / "report.html", _render(read_any(folder), folder))


def read_any(folder: Path) -> Record:
    """Read the record of a run of any experiment; DataError if the folder has no readable ``results.json``."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Give the folder that `invattn reconstruct --output` wrote.")
    results = folder / "results.json"
    value = read_json(results)
    kind = next((kind for kind in (DensityRecord, CamouflageRecord) if kind.wrote(value)), ReconstructionRecord)
    return kind.read(results)


def write_merged(folders: Sequence[Path], output: Path) -> Path:
    """Write one self-contained page about several runs of any experiments into ``output`` and return its path."""
    records = [read_any(Path(folder)) for folder in folders]
    pairs = enumerate(zip(records, folders, strict=True), start=1)
    runs = [_run(number, record, Path(folder)) for number, (record, folder) in pairs]
    output.mkdir(parents=True, exist_ok=True)
    return write_page(output / "merged.html", render_page("merged", "merged.html", tables=overview(records), runs=runs))


def _render(record: Record, folder: Path) -> str:
    render: Any = _RENDER[type(record)]
    return str(render(record, folder=folder))


def _run(number: int, record: Record, folder: Path) -> dict[str, Any]:
    """Return a run for the template; ``figures`` are links, an anchor and words each."""
    prefix = f"run{number}-"
    body = body_of(_render(record, folder), prefix=prefix)
    figures = [
        (prefix + part, words) for part, words in _FIGURES[type(record)].items() if f'id="{prefix}{part}"' in body
    ]
    return {"number": number, "command": record.command, "body": body, "figures": figures}


def body_of(page: str, *, prefix: str) -> Markup:
    """Return what stands in the ``main`` element of one of our pages, with a prefix before every identifier."""
    inside = page.split("<main>", 1)[1].rsplit("</main>", 1)[0]
    inside = re.sub(r'(\sid=")', rf"\g<1>{prefix}", inside)
    inside = re.sub(r'((?:xlink:)?href="#)', rf"\g<1>{prefix}", inside)
    return Markup(re.sub(r"(url\(#)", rf"\g<1>{prefix}", inside))
