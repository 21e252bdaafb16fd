"""The page and the pictures of samples of one flow over images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invattn._errors import DataError
from invattn._files import atomic_write, read_json
from invattn.experiments.density.page import images as density_image_parts
from invattn.experiments.kit.page import formatting as labels
from invattn.experiments.kit.page.artifacts import Artifact, MissingPartError
from invattn.experiments.kit.page.environment import page_environment
from invattn.experiments.kit.page.pictures import sheet

_NEEDED = ("model", "attention", "recipe", "seed", "count", "temperatures", "failed", "not_finite", "failures")


def write_sample_page(folder: Path) -> Path:
    """Write ``samples.html``, and ``samples_T<temperature>.png`` for each temperature, from what a sampling left.

    Args:
        folder: The output folder of ``invattn density sample``, with ``samples.json`` and ``artifacts/``.

    Returns:
        The page's path.

    Raises:
        DataError: If the folder holds no samples of a flow over images.
        OSError: If a file cannot be written.
    """
    path = folder / "samples.json"
    summary = read_json(path)
    if not isinstance(summary, dict) or not set(_NEEDED) <= summary.keys():
        raise DataError(f"{path} does not describe samples of a flow over images. Draw them again.")
    artifact = Artifact(folder, attention=str(summary["attention"]), recipe=str(summary["recipe"]))
    try:
        values, images, failed = artifact.take("sample_temperatures", "sample_images", "sample_failed")
    except MissingPartError as reason:
        raise DataError(f"{folder} holds no samples that can be shown: {reason}. Draw them again.") from None
    for value, pictures, lost in zip(values, images, failed, strict=True):
        columns = max(1, round(float(len(pictures)) ** 0.5))
        png = sheet(pictures, columns=columns, failed=lost.astype(bool), white=True)
        atomic_write(folder / f"samples_T{float(value):g}.png", png)
    page = folder / "samples.html"
    atomic_write(page, _render(summary, artifact).encode("utf-8"))
    return page


def _render(summary: dict[str, Any], artifact: Artifact) -> str:
    data = summary.get("data")
    parts = [density_image_parts.all_samples(artifact)]
    parts += [density_image_parts.own_walks(artifact)] if artifact.holds("walk_images") else []
    parts += [density_image_parts.nearest([artifact])] if artifact.holds("nearest_images") else []
    return (
        page_environment("density")
        .get_template("samples.html")
        .render(
            summary=summary,
            label=artifact.label,
            dataset=None if data is None else labels.dataset(str(data["name"])),
            data=data,
            headline=_headline(summary),
            rows=_rows(summary),
            has_distance="frechet" in summary,
            parts={part.anchor: part for part in parts},
        )
    )


def _headline(summary: dict[str, Any]) -> str:
    failed, lost = sum(summary["failed"]), sum(summary["not_finite"])
    total = summary["count"] * len(summary["temperatures"])
    if failed or lost:
        return f"{failed} of {total} inverses did not reach their tolerance, {lost} samples are not finite."
    return f"All {total} inverses reached their tolerance, and every sample is finite."


def _rows(summary: dict[str, Any]) -> Sequence[tuple[str, str, str, str]]:
    """Return (temperature, failed inverses, not finite, Frechet distance) of each temperature, ready to print."""
    distances = summary.get("frechet") or [None] * len(summary["temperatures"])
    columns = (summary["temperatures"], summary["failed"], summary["failures"], summary["not_finite"], distances)
    return [
        (f"{value:g}", f"{failed} ({why})" if failed else "0", str(lost), "" if far is None else f"{far:.4g}")
        for value, failed, why, lost, far in zip(*columns, strict=True)
    ]
