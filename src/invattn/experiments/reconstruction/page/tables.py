"""The tables of the page: ours beside the paper's, and the paper's alone for context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.record import published_reconstruction
from invattn.experiments.reconstruction.record import ReconstructionRecord, ReconstructionResult

PAPER_DATASETS = ("cifar10", "svhn", "celeba")


def groups(record: ReconstructionRecord) -> list[tuple[str, str, list[ReconstructionResult]]]:
    """Return the main table, (title, detail, results by attention kind) for each recipe and data set."""
    keys = {(result.recipe, result.dataset, str(result.image_size)) for result in record.results}
    recipes = formatting.in_order((result.recipe for result in record.results), formatting.RECIPES)
    found = []
    for recipe, dataset, size in sorted(keys, key=lambda key: (recipes.index(key[0]), key[1:])):
        results = [r for r in record.results if (r.recipe, r.dataset, str(r.image_size)) == (recipe, dataset, size)]
        images = _span([result.images for result in results], "test image")
        repeats = _span([result.repeats for result in results], "repeat")
        detail = f"{formatting.dataset(dataset)}, {formatting.size(size)}, {images}, {repeats}"
        found.append((formatting.recipe(recipe), detail, in_kind_order(results)))
    return found


def in_kind_order(results: Sequence[ReconstructionResult]) -> list[ReconstructionResult]:
    """Return the results in the usual order of the attention kinds."""
    order = formatting.in_order((result.attention for result in results), formatting.KINDS)
    return sorted(results, key=lambda result: order.index(result.attention))


def _span(values: Sequence[int], noun: str) -> str:
    low, high = min(values), max(values)
    numbers = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{numbers} {noun}{'' if high == 1 else 's'}"


def remarks(record: ReconstructionRecord) -> list[str]:
    """Return what a reader of the table must know about single cells: lost pixels, trainings that broke off."""
    found = []
    for result in record.results:
        name = formatting.variant(result.attention, result.recipe)
        if result.metrics.non_finite:
            pixels = formatting.count(result.metrics.non_finite)
            found.append(f"{name}: {pixels} recovered pixel values were not finite and count as 0.")
        for repeat, step in enumerate(result.extra.get("stopped_at") or (), start=1):
            if step is not None:
                found.append(
                    f"{name}, repeat {repeat}: the training loss was not finite at step {step}; the model of the step "
                    "before was evaluated."
                )
    return found


def published_cells(paper: Mapping[str, Any], *, plain: bool = False) -> tuple[str, str, str]:
    """Return the published MSE, SSIM and V-score as printed in the paper."""
    mse, ssim, v_score = (paper.get(key) for key in ("mse", "ssim", "v_score"))
    return formatting.error(mse, plain=plain), formatting.decimals(ssim), formatting.share(v_score)


def context(record: ReconstructionRecord) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the data sets of the paper's table for this image size, and (label, three figures a set) of each kind."""
    small = all(str(result.image_size) in ("32", "32x32") for result in record.results)
    size, datasets = ("32", PAPER_DATASETS) if small else ("original", ("celeba",))
    columns = [published_reconstruction(dataset, size) for dataset in datasets]
    rows = []
    for kind in formatting.KINDS:
        figures = [column[kind] for column in columns]
        cells = [cell for figure in figures if figure is not None for cell in published_cells(figure)]
        if cells:
            rows.append((formatting.kind(kind), cells))
    return [formatting.dataset(name) for name in datasets], rows
