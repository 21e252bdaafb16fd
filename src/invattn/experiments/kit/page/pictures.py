"""Images and heat maps as PNG data that stands inside the page."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from invattn.experiments.kit.page.artifacts import Array
from invattn.experiments.kit.page.parts import Panel

ERROR_MAP = "inferno"
ATTENTION_MAP = "viridis"
_LEVELS = 255
_NOT_FINITE = (128, 160, 160)


def png(image: Array) -> str:
    """Return an image as a ``data:`` address.

    Args:
        image: uint8, shape (H, W, 3).
    """
    return _address(Image.fromarray(np.ascontiguousarray(image)))


def log_heat(values: Array, *, low: float, high: float) -> str:
    """Colour non-negative values on a logarithmic scale and return the picture as a ``data:`` address.

    Args:
        values: Shape (H, W); what is not finite becomes grey.
        low: Value of the darkest colour; smaller ones share it.
        high: Value of the lightest colour; larger ones share it.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    logs = np.log(np.clip(np.where(finite, values, low), low, high))
    return _coloured((logs - np.log(low)) / (np.log(high) - np.log(low)), finite, ERROR_MAP)


def linear_heat(values: Array) -> str:
    """Colour values from their smallest to their largest; a constant map has the middle colour.

    Args:
        values: Shape (h, w); what is not finite becomes grey.

    Returns:
        The picture as a ``data:`` address.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return _coloured(np.zeros_like(values), finite, ATTENTION_MAP)
    low, high = values[finite].min(), values[finite].max()
    spread = high - low
    if spread <= 1e-6 * max(abs(low), abs(high)):
        return _coloured(np.full_like(values, 0.5), finite, ATTENTION_MAP)
    return _coloured((np.where(finite, values, low) - low) / spread, finite, ATTENTION_MAP)


def gradient(name: str, *, stops: int = 24) -> str:
    """Return a colour map as a CSS gradient, low values on the left."""
    shades = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in _shades(name, stops))
    return f"linear-gradient(to right, {shades})"


def _shades(name: str, count: int) -> list[tuple[int, int, int]]:
    colours = matplotlib.colormaps[name](np.linspace(0.0, 1.0, count), bytes=True)
    return [(int(red), int(green), int(blue)) for red, green, blue, _ in colours]


def _coloured(unit: Array, finite: Array, name: str) -> str:
    """A picture with a palette: a third of the size of one in full colour."""
    level = np.where(finite, np.round(np.clip(unit, 0.0, 1.0) * (_LEVELS - 1)), _LEVELS).astype(np.uint8)
    picture = Image.fromarray(level)
    picture.putpalette([part for shade in (*_shades(name, _LEVELS), _NOT_FINITE) for part in shade])
    return _address(picture)


def _address(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


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
