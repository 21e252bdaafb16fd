"""The tables of image densities as Markdown and JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invattn.records import atomic_write, write_json

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
HELPS = 0.01
"""Attention helps where it beats P = I and an extra convolution by more than so many bits/dim."""

_HEADS = {
    "digits": (
        "Density of scikit-learn's digits",
        """1,797 images, 8 x 8, levels 0 to 16: 1,500 for training, 297 for testing (a permutation with seed 0). A level x
becomes t = (x + u) / 17 - 1/2 with u uniform in [0, 1); bits/dim are -log2 p(t) / 64 + log2 17, a bound of the bits
that the integers need. Peers train for 40 CPU seconds on entries that are standardised first, or behind the front
of ours: histograms of each entry, the normal quantile, whitening. Inverse errors are in units of t, all in float32.""",
    ),
    "celeba16": (
        "Density of CelebA faces at 16 x 16",
        """7,500 files of 89 x 109 pixels, the centre square of 74 box-resized to 16 x 16 and rounded: the first 7,000 by
name for training (mirrored at random), the last 500 for testing. Uniform dequantisation of 256 levels, bits/dim =
-log2 p(t) / 768 + 8. All flows share one fitted front; a mixer stands after each of four blocks.""",
    ),
    "cifar32": (
        "Density of CIFAR-10",
        """7,319 training images (mirrored at random) and 500 test images. Uniform dequantisation of 256 levels,
bits/dim = -log2 p(t) / 3072 + 8. All flows share one fitted front; a mixer stands after each of four blocks.""",
    ),
}
_COLUMNS = (
    "row",
    "bits/dim of each seed",
    "mean",
    "error over images",
    "median",
    "outliers",
    "inverse error, worst",
    "radius, largest",
    "CPU s",
    "parameters",
)


def write_table(name: str, results: Sequence[dict[str, Any]], *, folder: Path = RESULTS, note: str = "") -> None:
    """Write NAME.md and NAME.json from the results of all cells."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"{name}.md", (table(name, results) + note).encode())
    plain = [_summary(result) for result in results]
    write_json(folder / f"{name}.json", {"table": name, "torch": torch.__version__, "cells": plain})


def table(name: str, results: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown, a row for each variant with the value of every seed."""
    title, text = _HEADS[name]
    lines = [
        f"# {title}",
        "",
        f"`python benchmarks/density_tables.py {name}`, one thread; one draw of the noise on the test images, the same",
        f"for all rows. {text}",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    rows = _by_row(results)
    lines += [_row(cells) for cells in rows.values()]
    if "pointwise" in rows and len(rows["pointwise"]) > 1:
        lines += ["", *_differences(rows)]
    return "\n".join([*lines, ""])


def _by_row(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        rows.setdefault(result["row"], []).append(result)
    return rows


def _row(cells: Sequence[dict[str, Any]]) -> str:
    bits = torch.stack([_bits(cell) for cell in cells])
    refused = any(cell.get("refused") for cell in cells)
    each = ", ".join("refused" if cell.get("refused") else f"{float(_bits(cell).mean()):.3f}" for cell in cells)
    mean = "-" if refused else f"{float(bits.mean()):.3f}"
    error = "-" if refused else f"{float(bits.mean(dim=0).std()) / math.sqrt(bits.shape[1]):.3f}"
    median = f"{float(bits.nan_to_num(nan=math.inf).median()):.3f}"
    outliers = sum(cell.get("outliers", 0) for cell in cells)
    inverse = _worst(cells, "inverse_error", "{:.1e}")
    radius = _worst(cells, "radius", "{:.3f}")
    seconds = f"{statistics.fmean(cell['cpu_seconds'] for cell in cells):.0f}"
    return (
        f"| {cells[0]['title']} | {each} | {mean} | {error} | {median} | {outliers} | {inverse} | {radius} | {seconds} "
        f"| {cells[0]['parameters']:,} |"
    )


def _differences(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return how attention differs from both controls, image by image, averaged over seeds."""
    lines = [
        "Differences in bits/dim, paired by image and seed (below 0: better than the control), with standard errors",
        "over images of the mean over seeds:",
        "",
        "| row | minus P = I | minus extra convolution | each seed, minus P = I |",
        "|---|---|---|---|",
    ]
    helps = []
    for name, cells in rows.items():
        if name in ("pointwise", "convolution") or "radius" not in cells[0]:
            continue
        apart = [_paired(cells, rows[control]) for control in ("pointwise", "convolution")]
        seeds = ", ".join(f"{float(value):+.4f}" for value in apart[0].mean(dim=1))
        both = " | ".join(f"{float(d.mean()):+.4f} +- {_error(d):.4f}" for d in apart)
        lines.append(f"| {cells[0]['title']} | {both} | {seeds} |")
        if name != "none" and all(float(d.mean()) + 2 * _error(d) < -HELPS for d in apart):
            helps.append(cells[0]["title"])
    verdict = (
        f"Attention helps (better than both controls by more than {HELPS} bits/dim, at two standard errors): "
        f"{', '.join(helps)}."
        if helps
        else f"No kind of attention beats both controls by more than {HELPS} bits/dim at two standard errors."
    )
    return [*lines, "", verdict]


def _paired(cells: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> Tensor:
    """Return the differences with shape (seeds, images)."""
    return torch.stack([_bits(a) - _bits(b) for a, b in zip(cells, others, strict=True)])


def _error(differences: Tensor) -> float:
    return float(differences.mean(dim=0).std()) / math.sqrt(differences.shape[1])


def _bits(cell: dict[str, Any]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in cell["bits"]], dtype=torch.float64)


def _worst(cells: Sequence[dict[str, Any]], name: str, style: str) -> str:
    values = [cell[name] for cell in cells if cell.get(name) is not None]
    return style.format(max(values)) if values else "-"


def _summary(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell without its hash and with its values rounded to what they are worth."""
    plain = {name: value for name, value in cell.items() if name not in ("key", "bits")}
    return plain | {"bits_per_dim": float(_bits(cell).mean()), "bits": [round(float(b), 4) for b in _bits(cell)]}
