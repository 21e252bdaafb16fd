"""The files of ``invattn density sample``: pictures of point sets; the page and the pictures of images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from invattn._errors import DataError
from invattn._files import atomic_write, read_json
from invattn.experiments.density.page import images
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError
from invattn.experiments.kit.page.environment import render_page, write_page
from invattn.experiments.kit.page.pictures import sheet, square_columns

_LEAST_WIDTH = 640
_NEEDED = ("model", "attention", "recipe", "seed", "count", "temperatures", "failed", "not_finite", "failures")


def write_samples(folder: Path, sets: Array) -> Path:
    """Write sets, shape (n, N, 2) or (N, 2), as ``samples.npy`` and as the picture ``samples.png``; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    values = io.BytesIO()
    np.save(values, sets, allow_pickle=False)
    atomic_write(folder / "samples.npy", values.getvalue())
    sets = sets[None] if sets.ndim == 2 else sets
    picture = io.BytesIO()
    columns = min(4, len(sets))
    rows = -(-len(sets) // columns)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(2.4 * columns, 2.4 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            axes.set_axis_off()
            if number < len(sets):
                axes.scatter(sets[number, :, 0], sets[number, :, 1], s=6, linewidths=0)
                axes.set(xlim=(-6.5, 6.5), ylim=(-6.5, 6.5), aspect="equal")
        figure.savefig(picture, format="png", dpi=110)
    path = folder / "samples.png"
    atomic_write(path, picture.getvalue())
    return path


def write_sample_page(folder: Path) -> Path:
    """Write ``samples.html``, and ``samples_T<temperature>.png`` for each temperature, from what a sampling left.

    Returns the page's path; DataError if the folder holds no ``samples.json`` or ``artifacts/`` of a flow over images.
    """
    path = folder / "samples.json"
    summary = read_json(path)
    if not isinstance(summary, dict) or not set(_NEEDED) <= summary.keys():
        raise DataError(f"{path} does not describe samples of a flow over images. Draw them again.")
    artifact = Artifact(folder, attention=str(summary["attention"]), recipe=str(summary["recipe"]))
    try:
        values, drawn, failed = artifact.take("sample_temperatures", "sample_images", "sample_failed")
    except MissingPartError as reason:
        raise DataError(f"{folder} holds no samples that can be shown: {reason}. Draw them again.") from None
    for value, pictures, lost in zip(values, drawn, failed, strict=True):
        columns = square_columns(len(pictures))
        enlarge = max(1, _LEAST_WIDTH // (columns * (pictures.shape[2] + 2) + 2))
        png = sheet(pictures, columns=columns, gap=2, border=2, failed=lost.astype(bool), enlarge=enlarge)
        atomic_write(folder / f"samples_T{float(value):g}.png", png)
    return write_page(folder / "samples.html", _render(summary, artifact))


def _render(summary: dict[str, Any], artifact: Artifact) -> str:
    data = summary.get("data")
    parts = [images.all_samples(artifact)]
    parts += [images.own_walks(artifact)] if artifact.holds("walk_images") else []
    parts += [images.nearest([artifact])] if artifact.holds("nearest_images") else []
    return render_page(
        "density",
        "samples.html",
        parts=parts,
        summary=summary,
        label=artifact.label,
        dataset=None if data is None else formatting.dataset(str(data["name"])),
        data=data,
        headline=[_headline(summary)],
        has_distance="frechet" in summary,
    )


def _headline(summary: dict[str, Any]) -> str:
    failed, lost = sum(summary["failed"]), sum(summary["not_finite"])
    total = summary["count"] * len(summary["temperatures"])
    if failed or lost:
        return f"{failed} of {total} inverses did not reach their tolerance, {lost} samples are not finite."
    return f"All {total} inverses reached their tolerance, and every sample is finite."
