"""The reconstruction table as Markdown, in the layout of the paper's Table 2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.environment import render_page
from invattn.experiments.reconstruction.page import tables
from invattn.experiments.reconstruction.record import ReconstructionRecord, ReconstructionResult

_Column = tuple[str, str]


def markdown_table(records: ReconstructionRecord | Sequence[ReconstructionRecord]) -> str:
    """Merge one or several runs into the layout of Table 2: data sets side by side, the paper's figures above ours.

    Every recipe has a table of MSE, SSIM and V-score and a second one of what the paper does not report (worst image,
    convergence, evaluations, certificate). A list of the runs (command, seed, data, fingerprint, versions) closes it.
    Raises ValueError if no result was given, or one cell twice.
    """
    runs = [records] if isinstance(records, ReconstructionRecord) else list(records)
    results = [result for run in runs for result in run.results]
    if not results:
        raise ValueError("a table needs at least one result; the records given hold none.")
    cells: dict[tuple[str, str, _Column], ReconstructionResult] = {}
    for result in results:
        key = (result.recipe, result.attention, _column(result))
        if key in cells:
            raise ValueError(
                f"{result.attention} {result.recipe} on {result.dataset} is given twice. Give each run once, with all "
                "repeats of a cell in one run."
            )
        cells[key] = result
    recipes = formatting.in_order((result.recipe for result in results), formatting.RECIPES)
    groups = [
        _group(recipe, {key[1:]: result for key, result in cells.items() if key[0] == recipe}) for recipe in recipes
    ]
    shown = [(run, _portable(run.command)) for run in runs]
    return render_page("merged", "table2.md", groups=groups, runs=shown)


def _column(result: ReconstructionResult) -> _Column:
    return result.dataset, formatting.size(result.image_size)


def _group(recipe: str, cells: dict[tuple[str, _Column], ReconstructionResult]) -> dict[str, Any]:
    """Return a recipe for the template: a row for each kind with the paper's figures, ours, and the results."""
    kinds = formatting.in_order((kind for kind, _ in cells), formatting.KINDS)
    datasets = formatting.in_order((dataset for _, (dataset, _) in cells), tables.PAPER_DATASETS)
    columns = sorted({column for _, column in cells}, key=lambda column: (datasets.index(column[0]), column[1]))
    heads = [_head(column, columns) for column in columns]
    rows = []
    for kind in kinds:
        found = [cells.get((kind, column)) for column in columns]
        published = [
            cell for result in found for cell in tables.published_cells((result and result.paper) or {}, plain=True)
        ]
        ours = [cell for result in found for cell in _ours(result)]
        rows.append(
            (kind, published, ours, [(head, result) for head, result in zip(heads, found, strict=True) if result])
        )
    figures = [f"{head} {name}" for head in heads for name in ("MSE ↓", "SSIM ↑", "V-score ↑")]
    return {"recipe": recipe, "figures": figures, "rows": rows}


def _head(column: _Column, columns: Sequence[_Column]) -> str:
    """The data set's name, with the image size where one data set stands in several sizes or is not 32x32."""
    dataset, size = column
    alone = [name for name, _ in columns].count(dataset) == 1
    return formatting.dataset(dataset) if alone and size == "32×32" else f"{formatting.dataset(dataset)} {size}"


def _ours(result: ReconstructionResult | None) -> list[str]:
    if result is None:
        return [formatting.MISSING] * 3
    metrics = result.metrics
    mse = formatting.error(metrics.mse, digits=2, plain=True)
    if result.repeats > 1:
        mse += f" ± {formatting.error(metrics.mse_std, digits=1, plain=True)}"
    return [mse, formatting.decimals(metrics.ssim), formatting.share(metrics.v_score)]


def _portable(command: str) -> str:
    """Return a command without the paths of one machine: a published text says DIR instead."""
    return re.sub(r"(?<![^\s=\"'])(?:/|~|[A-Za-z]:\\)[^\s\"']*", "DIR", command)
