"""Images and heat maps as PNG data that stands inside the page."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from matplotlib.image import imsave

from invattn.report.artifacts import Array

ERROR_MAP = "inferno"
ATTENTION_MAP = "viridis"
_NOT_FINITE = (128, 160, 160)


def png(image: Array) -> str:
    """Return an image as a ``data:`` address.

    Args:
        image: uint8, shape (H, W, 3).
    """
    stream = io.BytesIO()
    imsave(stream, image, format="png", pil_kwargs={"optimize": True})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def log_heat(values: Array, *, low: float, high: float) -> Array:
    """Colour non-negative values on a logarithmic scale.

    Args:
        values: Shape (H, W); what is not finite becomes grey.
        low: Value of the darkest colour; smaller ones share it.
        high: Value of the lightest colour; larger ones share it.

    Returns:
        uint8, shape (H, W, 3).
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    logs = np.log(np.clip(np.where(finite, values, low), low, high))
    return _coloured((logs - np.log(low)) / (np.log(high) - np.log(low)), finite, ERROR_MAP)


def linear_heat(values: Array) -> Array:
    """Colour values from their smallest to their largest; a constant map has the middle colour.

    Args:
        values: Shape (h, w); what is not finite becomes grey.

    Returns:
        uint8, shape (h, w, 3).
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


def _coloured(unit: Array, finite: Array, name: str) -> Array:
    shades: Array = matplotlib.colormaps[name](unit, bytes=True)[..., :3]
    shades[~finite] = _NOT_FINITE
    return shades


def gradient(name: str, *, stops: int = 24) -> str:
    """Return a colour map as a CSS gradient, low values on the left."""
    shades = matplotlib.colormaps[name](np.linspace(0.0, 1.0, stops), bytes=True)[:, :3]
    colours = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in shades)
    return f"linear-gradient(to right, {colours})"
