"""The page of ``invattn camouflage evaluate``: what was measured of each set, and its first maps."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from invattn.records import MapMetrics
from invattn.report import formatting
from invattn.report.page import page_environment

COLUMNS = {
    "s_measure": "S",
    "f_mean": "F mean",
    "f_max": "F max",
    "f_adaptive": "F adaptive",
    "f_weighted": "F weighted",
    "e_mean": "E mean",
    "e_max": "E max",
    "e_adaptive": "E adaptive",
    "mae": "MAE",
}


def render_maps(sets: Mapping[str, MapMetrics], sheets: Mapping[str, bytes]) -> str:
    """Return the page as text.

    Args:
        sets: Name -> what was measured.
        sheets: Name -> a PNG of the first maps, below their masks.
    """
    rows = [
        (name, metrics.images, [formatting.similarity(getattr(metrics, key)) for key in COLUMNS])
        for name, metrics in sets.items()
    ]
    pictures = {name: f"data:image/png;base64,{base64.b64encode(sheet).decode()}" for name, sheet in sheets.items()}
    content = {"rows": rows, "columns": list(COLUMNS.values()), "pictures": pictures}
    return page_environment().get_template("maps.html").render(**content)
