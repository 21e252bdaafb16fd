"""The tables of image densities as Markdown and JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invattn._files import atomic_write, write_json

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
_POINTWISE, _CONVOLUTION = _CONTROLS = ("pointwise-certified", "convolution-certified")
HELPS = 0.01
"""Attention helps where it beats P = I and an extra convolution by more than so many bits/dim."""

_HEADS = {
    "digits": (
        "Density of scikit-learn's digits",
        """Images 0 to 1,499 of scikit-learn's 1,797 are for training, the other 297 for testing; 8 x 8 pixels, grey
levels 0 to 16. A level v becomes x = (v + u) / 17 - 1/2, u uniform in [0, 1); bits/dim are -log2 p(x) / 64 + log2 17,
no less on average than what the levels need. The flows of other libraries train for 40 CPU seconds, on data that are
standardised or behind what is fitted of ours: the histogram of each entry made normal, then whitening. Inverse errors
are in units of x, in float32; a grey level is 0.059.""",
    ),
    "celeba16": (
        "Density of CelebA faces at 16 x 16",
        """7,500 files of 89 x 109 pixels, the centre square of 74 reduced to 16 x 16 by a box filter and rounded: the
first 7,000 by name for training, mirrored at random, the last 500 for testing. Uniform dequantisation, bits/dim =
-log2 p(x) / 768 + 8. All flows have the same front, fitted (tapered whitening of the whole image, a spline of each
whitened entry), and two scales of two convolutional blocks; a mixer stands after each block. The full-covariance
Gaussian has its ridge chosen on training images.""",
    ),
    "cifar32": (
        "Density of CIFAR-10",
        """7,319 training images, mirrored at random, and 500 test images. Uniform dequantisation, bits/dim =
-log2 p(x) / 3072 + 8. The flows are those of the CelebA table, a fitted front and two scales of two convolutional
blocks, with P = I or certified attention after each block, or released attention after the first scale as in its
code, or neither. The full-covariance Gaussian has its ridge chosen on training images. Where an uncertified block's
measured spectral radius reaches 1 the likelihood is refused, and median and outliers alone are shown.""",
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


def write_table(name: str, results: Sequence[dict[str, Any]], *, folder: Path = RESULTS) -> str:
    """Write NAME.md and NAME.json from the rows of every training, and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(name, results)
    atomic_write(folder / f"{name}.md", text.encode())
    plain = [_summary(result) for result in results]
    write_json(folder / f"{name}.json", {"table": name, "torch": torch.__version__, "rows": plain})
    return text


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
    for name, value in next((result["references"] for result in results if "references" in result), {}).items():
        lines.append(f"| *{name}* | {value:.3f} | {value:.3f} |" + " |" * (len(_COLUMNS) - 3))
    rows = _by_row(results)
    lines += [_row(cells) for cells in rows.values()]
    if _POINTWISE in rows and _CONVOLUTION in rows:
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
    median = ", ".join(f"{cell['median']:.3f}" for cell in cells)
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
        if name in _CONTROLS or "radius" not in cells[0]:
            continue
        apart = [_paired(cells, rows[control]) for control in _CONTROLS]
        seeds = ", ".join(f"{float(value):+.4f}" for value in apart[0].mean(dim=1))
        both = " | ".join(f"{float(d.mean()):+.4f} +- {_error(d):.4f}" for d in apart)
        lines.append(f"| {cells[0]['title']} | {both} | {seeds} |")
        if name != "none-certified" and all(float(d.mean()) + 2 * _error(d) < -HELPS for d in apart):
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
    plain = {name: value for name, value in cell.items() if name not in ("key", "bits", "references")}
    return plain | {"bits_per_dim": float(_bits(cell).mean()), "bits": [round(float(b), 4) for b in _bits(cell)]}
