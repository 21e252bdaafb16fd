"""Many small pictures on one sheet, as PNG."""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from invattn.report.artifacts import Array
from invattn.report.parts import Panel

GAP = 2
"""Pixels between pictures, before they are enlarged."""

_FAILED = (179, 38, 30, 255)
_LEAST_WIDTH = 640


def sheet(pictures: Array, *, columns: int, failed: Array | None = None, white: bool = False) -> bytes:
    """Set pictures side by side, row by row, enlarge small ones pixel by pixel, and return a PNG file.

    Args:
        pictures: uint8, shape (n, H, W, 3).
        columns: Pictures in a row.
        failed: Whether each failed, shape (n,): those stand in a red frame. None: none did.
        white: Whether the gaps are white; else they are transparent.
    """
    count, height, width = pictures.shape[:3]
    rows = -(-count // columns)
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 4)
    canvas = np.full(shape, 255 if white else 0, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        if failed is not None and failed[number]:
            canvas[top : top + height + 2 * GAP, left : left + width + 2 * GAP] = _FAILED
        place = canvas[top + GAP : top + GAP + height, left + GAP : left + GAP + width]
        place[..., :3], place[..., 3] = picture, 255
    factor = max(1, _LEAST_WIDTH // shape[1])
    image = Image.fromarray(canvas[..., :3] if white else canvas)
    if white:
        image = image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def sheet_panel(pictures: Array, *, title: str, description: str, failed: Array | None = None) -> Panel:
    """Return a sheet, as nearly square as its pictures allow, as a panel of a page.

    Args:
        pictures: uint8, shape (n, H, W, 3).
        title: Above it.
        description: What it shows, for readers who cannot see it.
        failed: As in ``sheet``.
    """
    columns = max(1, round(float(len(pictures)) ** 0.5))
    uri = base64.b64encode(sheet(pictures, columns=columns, failed=failed)).decode("ascii")
    image = f'<img class="sheet" src="data:image/png;base64,{uri}" alt="{escape(description)}">'
    return Panel(title=title, svg=Markup(image))
