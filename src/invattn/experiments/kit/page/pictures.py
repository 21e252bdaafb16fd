"""Images and heat maps as PNG data that stands inside the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Sequence

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from invattn.experiments.kit.page.artifacts import Array
from invattn.experiments.kit.page.parts import Cell, Panel, Row

ERROR_MAP = "inferno"
ATTENTION_MAP = "viridis"
_LEVELS = 255
_SMALL = 64
_NOT_FINITE = (128, 160, 160)
_FAILED = (179, 38, 30, 255)


def png(image: Array) -> str:
    """Return an image, uint8 of shape (H, W, 3), as a ``data:`` address."""
    return address(_file(Image.fromarray(np.ascontiguousarray(image))))


def row(label: str, images: Iterable[Array], alt: Callable[[int], str], *, kind: str = "") -> Row:
    """Return a row of images, uint8 of shape (H, W, 3) each; ``alt`` says what one shows by its number from 1."""
    cells = tuple(Cell(uri=png(image), alt=alt(number)) for number, image in enumerate(images, start=1))
    return Row(label=label, kind=kind, cells=cells)


def log_heat(values: Array, *, low: float, high: float) -> str:
    """Colour non-negative values, shape (H, W), by their logarithm between two ends; not finite ones become grey."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    logs = np.log(np.clip(np.where(finite, values, low), low, high))
    return _coloured((logs - np.log(low)) / (np.log(high) - np.log(low)), finite, ERROR_MAP)


def linear_heat(values: Array) -> str:
    """Colour values, shape (h, w), from smallest to largest, constant ones in the middle, not finite ones grey."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return _coloured(np.zeros_like(values), finite, ATTENTION_MAP)
    low, high = values[finite].min(), values[finite].max()
    spread = high - low
    if spread <= 1e-6 * max(abs(low), abs(high)):
        return _coloured(np.full_like(values, 0.5), finite, ATTENTION_MAP)
    return _coloured((np.where(finite, values, low) - low) / spread, finite, ATTENTION_MAP)


def are_small(images: Array) -> bool:
    """Whether images, shape (..., H, W, 3), are so small that they are shown pixel by pixel."""
    return max(int(side) for side in images.shape[-3:-1]) <= _SMALL


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
    return address(_file(picture))


def sheet(
    pictures: Sequence[Array],
    *,
    columns: int,
    gap: int = 4,
    border: int = 0,
    failed: Array | None = None,
    white: bool = True,
    enlarge: int = 1,
) -> bytes:
    """Set pictures side by side, row by row, and return a PNG file.

    The pictures are uint8 of shape (H, W, 3) each, of one height, and those of a column of one width; ``gap`` and
    ``border`` are in pixels. Those that failed, shape (n,), stand in a red frame as wide as the border. Gaps are white
    or transparent, and each pixel becomes ``enlarge`` wide and high.
    """
    height, widths = pictures[0].shape[0], [picture.shape[1] for picture in pictures[:columns]]
    rows = -(-len(pictures) // columns)
    shape = (rows * (height + gap) - gap + 2 * border, sum(widths) + (len(widths) - 1) * gap + 2 * border, 4)
    canvas = np.full(shape, 255 if white else 0, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = border + row * (height + gap), border + sum(widths[:column]) + column * gap
        if failed is not None and failed[number]:
            canvas[top - border : top + height + border, left - border : left + picture.shape[1] + border] = _FAILED
        place = canvas[top : top + height, left : left + picture.shape[1]]
        place[..., :3], place[..., 3] = picture, 255
    image = Image.fromarray(canvas[..., :3] if white else canvas)
    image = image.resize((enlarge * image.width, enlarge * image.height), Image.Resampling.NEAREST)
    return _file(image, optimize=True)


def sheet_panel(pictures: Array, *, title: str, description: str, failed: Array | None = None) -> Panel:
    """Return a sheet of pictures, uint8 of shape (n, H, W, 3), as nearly square as they allow, as a panel."""
    columns = square_columns(len(pictures))
    file = sheet(list(pictures), columns=columns, gap=2, border=2, failed=failed, white=False)
    return Panel(title=title, svg=_element(file, description))


def square_columns(count: int) -> int:
    """Return the number of pictures in a row that makes a sheet of so many nearly square."""
    return max(1, round(math.sqrt(count)))


def picture_panel(image: Image.Image, *, title: str, description: str) -> Panel:
    """Return a picture as a panel of a page."""
    return Panel(title=title, svg=_element(_file(image, optimize=True), description))


def _element(file: bytes, description: str) -> Markup:
    return Markup(f'<img class="sheet" src="{address(file)}" alt="{escape(description)}">')


def address(file: bytes) -> str:
    """Return a PNG file as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(file).decode("ascii")


def _file(picture: Image.Image, *, optimize: bool = False) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=optimize)
    return stream.getvalue()
