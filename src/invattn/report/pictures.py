"""Images and heat maps as PNG data that stands inside the page."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

from invattn.report.artifacts import Array

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
