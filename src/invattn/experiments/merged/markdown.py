"""The reconstruction table as Markdown, in the layout of the paper's Table 2."""

from __future__ import annotations

import re
from collections.abc import Sequence

from invattn.experiments.kit.page import formatting
from invattn.experiments.reconstruction.page import tables
from invattn.experiments.reconstruction.record import ReconstructionRecord, ReconstructionResult

_Column = tuple[str, str]


def markdown_table(records: ReconstructionRecord | Sequence[ReconstructionRecord]) -> str:
    """Merge one or several runs into the layout of Table 2: data sets side by side, the paper's figures above ours.

    Every recipe has a table of MSE, SSIM and V-score and a second one of what the paper does not report (worst image,
    convergence, evaluations, certificate). A list of the runs (command, seed, data, fingerprint, versions) closes it.

    Args:
        records: One record, or several of different data sets.

    Returns:
        Markdown text that ends in a newline.

    Raises:
        ValueError: If no result was given, or one cell was given twice.
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
    lines = []
    for recipe in formatting.in_order((result.recipe for result in results), formatting.RECIPES):
        lines += _recipe(recipe, {key[1:]: result for key, result in cells.items() if key[0] == recipe})
    return "\n".join([*lines, *_runs(runs)]) + "\n"


def _column(result: ReconstructionResult) -> _Column:
    return result.dataset, formatting.size(result.image_size)


def _recipe(recipe: str, cells: dict[tuple[str, _Column], ReconstructionResult]) -> list[str]:
    kinds = formatting.in_order((kind for kind, _ in cells), formatting.KINDS)
    datasets = formatting.in_order((dataset for _, (dataset, _) in cells), tables.PAPER_DATASETS)
    columns = sorted({column for _, column in cells}, key=lambda column: (datasets.index(column[0]), column[1]))
    heads = [_head(column, columns) for column in columns]
    lines = [f"## {formatting.recipe(recipe)}", "", formatting.GLOSSARY.get(recipe, ""), ""]
    figures = [f"{head} {name}" for head in heads for name in ("MSE ↓", "SSIM ↑", "V-score ↑")]
    lines += _header(["Attention", "", *figures])
    for kind in kinds:
        paper: list[str] = []
        ours: list[str] = []
        for column in columns:
            result = cells.get((kind, column))
            published = None if result is None else result.paper
            paper += [formatting.MISSING] * 3 if published is None else tables.published_cells(published, plain=True)
            ours += _ours(result)
        lines += [_line([formatting.kind(kind), "paper", *paper]), _line(["", "**ours**", *ours])]
    lines += ["", *_details(kinds, columns, heads, cells), ""]
    return lines


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


def _details(
    kinds: Sequence[str],
    columns: Sequence[_Column],
    heads: Sequence[str],
    cells: dict[tuple[str, _Column], ReconstructionResult],
) -> list[str]:
    """What the paper does not report, one line for each attention kind and data set."""
    names = ["Attention", "Data", "Images × repeats", "Worst image MSE", "Converged", "Evaluations mean / max"]
    lines = _header([*names, "Proven bound", "Non-finite pixels"])
    for kind in kinds:
        for column, head in zip(columns, heads, strict=True):
            result = cells.get((kind, column))
            if result is None:
                continue
            metrics, certificate = result.metrics, result.certificate
            proven = "none"
            if certificate is not None:
                proven = f"{formatting.bound(certificate.get('bound'))} in the norm {certificate.get('norm')}"
            lines.append(
                _line(
                    [
                        formatting.kind(kind),
                        head,
                        f"{result.images:,} × {result.repeats}",
                        formatting.error(metrics.mse_max, digits=2, plain=True),
                        formatting.share(metrics.converged, decimals=1),
                        formatting.mean_and_most(metrics.evaluations_mean, metrics.evaluations_max),
                        proven,
                        formatting.count(metrics.non_finite),
                    ]
                )
            )
    return lines


def _runs(runs: Sequence[ReconstructionRecord]) -> list[str]:
    lines = [
        "## Runs",
        "",
        "MSE is on the 0-255 scale, before rounding; the V-score is the share of test images with MSE < 10. An "
        "evaluation is one application of the residual branch. The paper's rows are its Table 2 (32×32) and Table 5 "
        "(218×178), on its own random choice of 1,000 training and 1,000 test images.",
        "",
    ]
    for run in runs:
        data = run.data
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        name = formatting.dataset(str(data.get("name")))
        lines.append(
            f"- {name}: {data.get('train')} training and {data.get('test')} test images, seed {run.seed}, "
            f"pixels SHA-256 `{data.get('fingerprint')}`; `{_portable(run.command)}`; {versions}."
        )
        lines += [f"  - {note}" for note in data.get("notes") or ()]
    return lines


def _portable(command: str) -> str:
    """Return a command without the paths of one machine: a published text says DIR instead."""
    return re.sub(r"(?<![^\s=\"'])(?:/|~|[A-Za-z]:\\)[^\s\"']*", "DIR", command)


def _header(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
