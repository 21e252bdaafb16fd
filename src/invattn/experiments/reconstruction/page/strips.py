"""The parts of the page that show pictures: reconstructions, error maps and attention maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from invattn.experiments.kit.page import formatting, pictures
from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError, collect, same_length
from invattn.experiments.kit.page.parts import Cell, Part, Row, Scale, Strip

FAILURE = 10.0
"""MSE from which on the paper counts an image as not recovered."""

_COLUMNS_SMALL, _COLUMNS_LARGE = 12, 5
_QUERIES = 6


def _columns(originals: Array) -> int:
    """Number of pictures side by side: large ones are shown in a smaller number."""
    return _COLUMNS_SMALL if pictures.are_small(originals) else _COLUMNS_LARGE


def _group(built: Sequence[tuple[Artifact, tuple[Array, Row]]]) -> list[Strip]:
    """Put rows of the same recipe and the same originals under one row of originals."""
    strips: list[Strip] = []
    for recipe in formatting.in_order((artifact.recipe for artifact, _ in built), formatting.RECIPES):
        groups: dict[bytes, tuple[Array, list[Row]]] = {}
        for artifact, (originals, row) in built:
            if artifact.recipe == recipe:
                groups.setdefault(originals.tobytes(), (originals, []))[1].append(row)
        for originals, rows in groups.values():
            first = pictures.row("Original", originals, lambda number: f"original test image {number}")
            pixels = pictures.are_small(originals)
            strips.append(Strip(title=formatting.recipe(recipe), rows=(first, *rows), pixels=pixels))
    return strips


def reconstructions(artifacts: Sequence[Artifact]) -> Part:
    """Originals over reconstructions, as in Fig. 3 and 4 of the paper."""

    def build(artifact: Artifact) -> tuple[Array, Row]:
        originals, images, mse = artifact.take("originals", "reconstructions", "image_mse")
        same_length(originals, images, mse)
        shown = _columns(originals)
        cells = tuple(
            Cell(
                uri=pictures.png(image),
                alt=f"test image {number} recovered by {artifact.label}, MSE {formatting.error(float(value))}",
                caption=_short(float(value)),
                failed=not value < FAILURE,
            )
            for number, (image, value) in enumerate(zip(images[:shown], mse[:shown], strict=True), start=1)
        )
        row = Row(label=formatting.kind(artifact.attention), kind=artifact.attention, cells=cells)
        return originals[:shown], row

    built, left_out = collect(artifacts, build)
    return Part(anchor="reconstructions", strips=tuple(_group(built)), left_out=left_out)


def _short(value: float) -> str:
    """An error in few characters, for the caption of a small picture."""
    if not np.isfinite(value):
        return "not finite"
    if value == 0.0:
        return "0"
    if 10 <= value < 1e5:
        return f"{value:,.0f}"
    return f"{value:.2g}" if 0.01 <= value < 10 else formatting.scientific(value, digits=0)


def error_maps(artifacts: Sequence[Artifact]) -> Part:
    """Where the reconstructions differ from the originals, on one logarithmic colour scale for the whole page."""
    found, left_out = collect(artifacts, _errors)
    low, high = _error_range([errors for _, (_, errors) in found])
    built = [(artifact, (pictured, _error_row(artifact, errors, low, high))) for artifact, (pictured, errors) in found]
    shades, ticks = pictures.gradient(pictures.ERROR_MAP), _decades(low, high)
    scale = Scale(gradient=shades, ticks=ticks, title="difference on the 0–255 scale")
    return Part(anchor="errors", strips=tuple(_group(built)), scale=scale if built else None, left_out=left_out)


def _errors(artifact: Artifact) -> tuple[Array, Array]:
    originals, errors = artifact.take("originals", "errors")
    same_length(originals, errors)
    if errors.shape[1:] != originals.shape[1:3]:
        raise MissingPartError("the stored arrays do not fit together")
    shown = _columns(originals)
    return originals[:shown], errors[:shown]


def _error_range(errors: Sequence[Array]) -> tuple[float, float]:
    """A scale from the smallest typical difference to the largest one, in whole decades but for an end at 255."""
    values = [np.ravel(array).astype(np.float64) for array in errors]
    positive = [v[np.isfinite(v) & (v > 0)] for v in values]
    if not any(v.size for v in positive):
        return 1e-3, 1.0
    low = min(float(np.quantile(v, 0.05)) for v in positive if v.size)
    high = min(max(float(v.max()) for v in positive if v.size), 255.0)
    last = int(np.ceil(np.log10(high)))
    first = min(int(np.floor(np.log10(low))), last - 3)
    return 10.0**first, min(10.0**last, 255.0)


def _decades(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Labels of a logarithmic scale: some of its decades, and 255 where it ends there."""
    first, length = round(np.log10(low)), float(np.log10(high / low))
    step = -(-int(length) // 6)
    places = range(0, int(length + 1e-9) + 1, step)
    ticks = [(100.0 * place / length, formatting.power_of_ten(first + place)) for place in places]
    if high < 255.0:
        return tuple(ticks)
    return (*[tick for tick in ticks if tick[0] < 94.0], (100.0, "255"))


def _error_row(artifact: Artifact, errors: Array, low: float, high: float) -> Row:
    cells = []
    for number, values in enumerate(errors, start=1):
        largest = float(np.max(values))
        cells.append(
            Cell(
                uri=pictures.log_heat(values, low=low, high=high),
                alt=f"error of test image {number} by {artifact.label}, at most {formatting.error(largest, digits=1)}",
                caption=_short(largest),
            )
        )
    return Row(label=formatting.kind(artifact.attention), kind=artifact.attention, cells=tuple(cells))


def attention_maps(artifacts: Sequence[Artifact]) -> Part:
    """Which positions a few query points attend to."""
    built, left_out = collect(artifacts, _attention_row)
    strips = []
    for recipe in formatting.in_order((artifact.recipe for artifact, _ in built), formatting.RECIPES):
        rows = tuple(row for artifact, row in built if artifact.recipe == recipe)
        widest = max(len(row.cells) for row in rows)
        heads = ("Image", *(f"Query {number}" for number in range(1, widest)))
        strips.append(Strip(title=formatting.recipe(recipe), rows=rows, heads=heads))
    shades, ticks = pictures.gradient(pictures.ATTENTION_MAP), ((0.0, "smallest"), (100.0, "largest"))
    scale = Scale(gradient=shades, ticks=ticks, title="weight, map by map")
    return Part(anchor="attention", strips=tuple(strips), scale=scale if strips else None, left_out=left_out)


def _attention_row(artifact: Artifact) -> Row:
    image, queries, maps = artifact.take("attention_image", "attention_query", "attention_maps")
    same_length(queries, maps)
    height, width = maps.shape[1:]
    if queries.shape[1] != 2 or (queries < 0).any() or (queries >= (height, width)).any():
        raise MissingPartError("the stored query points lie outside the image")
    marks = tuple(
        (100 * (float(column) + 0.5) / width, 100 * (float(row) + 0.5) / height, str(number))
        for number, (row, column) in enumerate(queries[:_QUERIES], start=1)
    )
    name = artifact.label
    cells = [Cell(uri=pictures.png(image), alt=f"image with the query points of {name}", marks=marks)]
    for mark, weights in zip(marks, maps, strict=False):
        caption = _range_in_uniform(weights)
        alt = f"weights of query {mark[2]} of {name}: {caption} times uniform"
        uri = pictures.linear_heat(weights)
        cells.append(Cell(uri=uri, alt=alt, caption=f"{caption}×", marks=(mark,)))
    return Row(label=formatting.kind(artifact.attention), kind=artifact.attention, cells=tuple(cells))


def _range_in_uniform(weights: Array) -> str:
    """The smallest and the largest weight, in multiples of the weight that all would have if they were equal."""
    low, high = float(weights.min()) * weights.size, float(weights.max()) * weights.size
    if not (np.isfinite(low) and np.isfinite(high)):
        return "not finite"
    return " – ".join(f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}" for value in (low, high))
