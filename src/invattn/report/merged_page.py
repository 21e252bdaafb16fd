"""One page about several runs: the paper's tables beside all of them, then the page of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from invattn.records import CamouflageRecord, DensityRecord, ReconstructionRecord, atomic_write
from invattn.report.overview import Record, overview
from invattn.report.page import page_environment, read_any, render_any

PAGE = "merged.html"

_FIGURES: dict[type, dict[str, str]] = {
    ReconstructionRecord: {"reconstructions": "Fig. 3 and 4: reconstructions", "constants": "error against steps"},
    DensityRecord: {"samples": "Fig. 5: samples"},
    CamouflageRecord: {"curves": "Fig. 6: F and E curves", "maps": "Fig. 7: maps"},
}
"""Sections of the pages that hold figures of the paper."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run on the page; ``figures`` are links, an anchor and words each."""

    number: int
    command: str
    body: Markup
    figures: tuple[tuple[str, str], ...]


def write_merged(folders: Sequence[Path], output: Path) -> Path:
    """Write one self-contained page about several runs of any experiments and return its path.

    Args:
        folders: The output folders of the runs.
        output: The folder of the page, made if it is missing.

    Raises:
        DataError: If a folder has no readable ``results.json``.
        OSError: If the page cannot be written.
    """
    records = [read_any(Path(folder)) for folder in folders]
    runs = [
        _run(number, record, Path(folder))
        for number, (record, folder) in enumerate(zip(records, folders, strict=True), start=1)
    ]
    text = page_environment().get_template("merged.html").render(tables=overview(records), runs=runs)
    output.mkdir(parents=True, exist_ok=True)
    path = output / PAGE
    atomic_write(path, text.encode("utf-8"))
    return path


def _run(number: int, record: Record, folder: Path) -> Run:
    body = body_of(render_any(record, folder=folder), prefix=f"run{number}-")
    figures = tuple(
        (f"run{number}-{anchor}", words)
        for anchor, words in _FIGURES[type(record)].items()
        if f'id="run{number}-{anchor}"' in body
    )
    return Run(number=number, command=record.command, body=body, figures=figures)


def body_of(page: str, *, prefix: str) -> Markup:
    """Return what stands in the ``main`` element of one of our pages, with a prefix before every identifier.

    Args:
        page: The page as text.
        prefix: Makes the identifiers of several pages distinct.
    """
    inside = page.split("<main>", 1)[1].rsplit("</main>", 1)[0]
    inside = re.sub(r'(\sid=")', rf"\g<1>{prefix}", inside)
    inside = re.sub(r'((?:xlink:)?href="#)', rf"\g<1>{prefix}", inside)
    return Markup(re.sub(r"(url\(#)", rf"\g<1>{prefix}", inside))
