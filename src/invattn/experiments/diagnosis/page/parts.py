"""The parts of a diagnosis page: histograms, flagged images, and pairs of images with one output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from invattn.experiments.diagnosis.record import DiagnosedImage, DiagnosisRecord
from invattn.experiments.kit.page import formatting, pictures
from invattn.experiments.kit.page.artifacts import Array, MissingPartError, same_length, stored_arrays
from invattn.experiments.kit.page.charts import Chart, Line, line_chart
from invattn.experiments.kit.page.parts import Cell, Key, Panel, Part, Row, Scale, Strip

_ENLARGE_BELOW = 128
_BINS = 40
_COLUMNS = 8
_RETURNED, _LOST = "gaussian", "embedded_gaussian"  # two colours that stand apart on the page


def take(path: Path, *names: str) -> list[Array]:
    """Return named arrays of ``artifacts/diagnosis.npz``, pictures uint8 of shape (n, H, W, 3), or MissingPartError."""
    found = list(stored_arrays(path, names, what="pictures").values())
    if len(found) < len(names):
        raise MissingPartError("there are none")
    same_length(*found)
    return found


def flagged_sheet(path: Path) -> bytes:
    """Return a PNG file with one flagged image a row, beside what the inverse returned."""
    return _sheet(*take(path, "failing_image", "failing_returned"))


def pair_sheet(path: Path) -> bytes:
    """Return a PNG file with one pair a row: both inputs and their difference, grey."""
    first, second, difference = take(path, "pair_first", "pair_second", "pair_difference")
    return _sheet(first, second, np.clip(difference, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=-1))


def _sheet(*columns: Array) -> bytes:
    """Set pictures into rows and columns on white, small ones enlarged pixel by pixel."""
    rows = [picture for row in zip(*columns, strict=True) for picture in row]
    return pictures.sheet(rows, columns=len(columns), enlarge=3 if max(columns[0].shape[1:3]) < _ENLARGE_BELOW else 1)


def histograms(record: DiagnosisRecord) -> Part:
    """How many images have which spectral radius and norm, those that the inverse lost apart."""
    quantities: tuple[tuple[str, str, Callable[[DiagnosedImage], float]], ...] = (
        ("Spectral radius of J", "radius", lambda image: image.spectral_radius),
        ("Largest radius from x to f(x)", "path", lambda image: image.path_radius),
        ("Spectral norm of J", "norm", lambda image: image.spectral_norm),
        ("Local Lipschitz ratio of g", "ratio", lambda image: image.lipschitz_ratio),
    )
    panels, left_out = [], []
    for title, name, value in quantities:
        lost = _finite(value(image) for image in record.images if record.lost(image))
        kept = _finite(value(image) for image in record.images if not record.lost(image))
        if len(lost) + len(kept) == 0:
            left_out.append(f"Left out: {title}, because it was not computed.")
            continue
        panels.append(Panel(title=title, svg=_histogram(kept, lost, title=title, name=name)))
    keys = (Key(role=_RETURNED, label="returned by the inverse"), Key(role=_LOST, label="lost"))
    return Part(anchor="histograms", panels=tuple(panels), keys=keys, left_out=tuple(left_out))


def _finite(values: Iterable[float]) -> Array:
    found: Array = np.asarray([value for value in values if np.isfinite(value)], dtype=np.float64)
    return found


def _histogram(kept: Array, lost: Array, *, title: str, name: str) -> Markup:
    both = np.concatenate([kept, lost])
    low, high = min(float(both.min()), 1.0), max(float(both.max()), 1.0)
    room = 0.02 * (high - low) + 1e-3
    edges = np.linspace(low - room, high + room, _BINS + 1)
    lines = [
        Line(x=edges, y=np.append(np.histogram(values, edges)[0], 0), role=role, steps=True)
        for values, role in ((kept, _RETURNED), (lost, _LOST))
    ]
    chart = Chart(
        name=f"diagnosis-{name}",
        description=f"Histogram over the test images: {title.lower()}",
        x_label=title[0].lower() + title[1:],
        y_label="images",
        x_limits=(float(edges[0]), float(edges[-1])),
        y_limits=(0.0, 1.05 * max(1.0, *(float(line.y.max()) for line in lines))),
        threshold=(1.0, "1"),
        whole_x=False,
    )
    return line_chart(lines, chart)


def flagged(record: DiagnosisRecord, path: Path) -> Part:
    """Images that were flagged or lost, over what the inverse returned."""
    try:
        index, originals, returned = take(path, "failing_index", "failing_image", "failing_returned")
    except MissingPartError as reason:
        return Part(anchor="flagged", left_out=(f"No image is shown here: {reason}.",))
    images = [record.images[int(number)] for number in index]
    top = [
        Cell(uri=pictures.png(picture), alt=f"test image {image.index}", caption=f"ρ {image.path_radius:.2f}")
        for picture, image in zip(originals, images, strict=True)
    ]
    bottom = [
        Cell(
            uri=pictures.png(picture),
            alt=f"what the inverse returned for test image {image.index}; flagged: {', '.join(image.reasons) or 'no'}",
            caption=f"{formatting.error(image.mse, digits=1)} {''.join(reason[0].upper() for reason in image.reasons)}",
            failed=record.lost(image),
        )
        for picture, image in zip(returned, images, strict=True)
    ]
    return Part(anchor="flagged", strips=_strips([("Image", top), ("Returned", bottom)], originals))


def pairs(record: DiagnosisRecord, path: Path) -> Part:
    """Test images over other inputs with the same output, and where the two differ."""
    try:
        index, first, second, difference = take(path, "pair_index", "pair_first", "pair_second", "pair_difference")
    except MissingPartError as reason:
        return Part(anchor="pairs", left_out=(f"No pair is shown here: {reason}.",))
    images = [record.images[int(number)] for number in index]
    rows: list[tuple[str, list[Cell]]] = [("Test image", []), ("Same output", []), ("Difference", [])]
    for image, a, b, d in zip(images, first, second, difference, strict=True):
        rows[0][1].append(Cell(uri=pictures.png(a), alt=f"test image {image.index}"))
        caption = f"Δ {formatting.scientific(image.output_difference, digits=0)}"
        rows[1][1].append(Cell(uri=pictures.png(b), alt=f"input with the output of {image.index}", caption=caption))
        heat = pictures.log_heat(d, low=1.0, high=255.0)
        rows[2][1].append(Cell(uri=heat, alt="difference of the two", caption=f"RMS {image.rms:.1f}"))
    scale = Scale(
        gradient=pictures.gradient(pictures.ERROR_MAP),
        ticks=((0.0, "1"), (41.6, "10"), (100.0, "255")),
        title="largest difference over the channels, grey levels",
    )
    return Part(anchor="pairs", strips=_strips(rows, first), scale=scale)


def _strips(rows: Sequence[tuple[str, Sequence[Cell]]], like: Array) -> tuple[Strip, ...]:
    """Cut long rows into strips that fit the page."""
    count = len(rows[0][1])
    strips = []
    for start in range(0, count, _COLUMNS):
        part = slice(start, start + _COLUMNS)
        cut = tuple(Row(label=label, cells=tuple(cells[part])) for label, cells in rows)
        title = f"{start + 1} to {min(start + _COLUMNS, count)} of {count} shown"
        strips.append(Strip(title=title, rows=cut, pixels=pictures.are_small(like)))
    return tuple(strips)
