"""How a page is made: an experiment's template over the shared base, filled from its record, and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from invattn._files import atomic_write
from invattn._kinds import KINDS
from invattn.experiments.kit.page import formatting, svg
from invattn.experiments.kit.page.parts import Part

_LOG = logging.getLogger(__name__)
_DATA = ("name", "fingerprint", "train", "test", "dimensions", "notes")


def render_page(
    experiment: str, template: str, *, record: Any = None, parts: Iterable[Part] = (), **content: Any
) -> str:
    """Return a page as text; it needs nothing else, since its style, charts and pictures stand inside it.

    Templates of the folder ``experiment`` are found beside the shared ones and extend ``base.html``. The record is None
    for a page of no single run; parts are found under their anchors; other content goes before the record's.
    """
    folders = [jinja2.PackageLoader(f"invattn.experiments.{folder}") for folder in (experiment, "kit")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(folders),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["variable"] = svg.variable
    environment.globals["formatting"] = formatting
    shared: dict[str, Any] = {
        "kind_colours": {name: kind.colour for name, kind in KINDS.items()},
        "headline": (),
        "tiles": (),
        "record": record,
        "parts": {part.anchor: part for part in parts},
    }
    if record is not None:
        shared["data"] = {key: record.data.get(key) for key in _DATA}
        shared["settings"] = {name: formatting.setting(value) for name, value in record.settings.items()}
    return environment.get_template(template).render(**shared | content)


def write_page(path: Path, text: str) -> Path:
    """Write a page and return its path; after an OSError an older page stays as it is."""
    atomic_write(path, text.encode("utf-8"))
    _LOG.info("wrote %s", path)
    return path
