"""The page of a run of reconstruction, with its result in two or three sentences and its key figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.page.artifacts import Artifact
from invattn.experiments.kit.page.environment import render_page, write_page
from invattn.experiments.kit.page.parts import Part
from invattn.experiments.reconstruction.page import panels, strips, tables
from invattn.experiments.reconstruction.record import ReconstructionRecord, ReconstructionResult


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from ``results.json`` and ``artifacts/`` of a run's folder, as ``write_page`` does."""
    return write_page(folder / "report.html", render(ReconstructionRecord.read(folder / "results.json"), folder=folder))


def render(record: ReconstructionRecord, *, folder: Path) -> str:
    """Return the page of a run's results as text; the artifacts of the figures lie in ``folder``."""
    headers, context_rows = tables.context(record)
    recipes = formatting.in_order((result.recipe for result in record.results), formatting.RECIPES)
    datasets = dict.fromkeys((result.dataset, str(result.image_size)) for result in record.results)
    return render_page(
        "reconstruction",
        "report.html",
        record=record,
        parts=_parts(record, folder),
        subject=", ".join(f"{formatting.dataset(name)} {formatting.size(size)}" for name, size in datasets),
        headline=headline(record),
        tiles=tiles(record),
        groups=tables.groups(record),
        published_cells=tables.published_cells,
        remarks=tables.remarks(record),
        published=any(result.paper is not None for result in record.results),
        context_datasets=headers,
        context_rows=context_rows,
        recipes=recipes,
    )


def _parts(record: ReconstructionRecord, folder: Path) -> list[Part]:
    recipes = formatting.in_order((result.recipe for result in record.results), formatting.RECIPES)
    ordered = sorted(tables.in_kind_order(record.results), key=lambda result: recipes.index(result.recipe))
    pairs = dict.fromkeys((result.attention, result.recipe) for result in ordered)
    stored = [Artifact(folder, attention=attention, recipe=recipe) for attention, recipe in pairs]
    return [
        strips.reconstructions(stored),
        strips.error_maps(stored),
        panels.distributions(stored),
        panels.residuals(stored),
        panels.lipschitz_curves(stored),
        strips.attention_maps(stored),
        panels.losses(stored, record.results),
    ]


def headline(record: ReconstructionRecord) -> list[str]:
    """Say what came out: the certified blocks first, then each other recipe."""
    proven = [result for result in record.results if result.certificate is not None]
    sentences = [_proven(proven)] if proven else []
    others = [result for result in record.results if result.certificate is None]
    for recipe in formatting.in_order((result.recipe for result in others), formatting.RECIPES):
        sentences.append(_unproven(recipe, [result for result in others if result.recipe == recipe]))
    return sentences or ["This run holds no results."]


def _proven(results: Sequence[ReconstructionResult]) -> str:
    metrics = [result.metrics for result in results]
    worst = formatting.error(_extreme(max, [m.mse_max for m in metrics]), digits=1)
    mean = formatting.count(_extreme(max, [m.evaluations_mean for m in metrics]), decimals=1)
    most = formatting.count(_extreme(max, [m.evaluations_max for m in metrics]))
    cost = f"{mean} evaluations of the residual branch on average and {most} at most"
    blocks = f"With a certificate, {_kinds(results)}"
    if all(m.v_score == 1.0 for m in metrics):
        sentence = (
            f"{blocks} recovered every one of the {_images(results)}test images: the worst image has a mean squared "
            f"error of {worst} on the 0–255 scale, for {cost}."
        )
    else:
        sentence = (
            f"{blocks} did not recover every test image: V-score {_range([m.v_score for m in metrics])}, "
            f"worst image MSE {worst}, for {cost}."
        )
    if all(m.converged == 1.0 for m in metrics):
        return sentence
    converged = _range([m.converged for m in metrics])
    return f"{sentence} Only {converged} of the images reached the solver's tolerance: allow it more steps."


def _unproven(recipe: str, results: Sequence[ReconstructionResult]) -> str:
    scores = _range([result.metrics.v_score for result in results])
    published = [float(result.paper["v_score"]) for result in results if result.paper is not None]
    beside = f" (the paper reports {_range(published)} on this data set)" if published else ""
    return f"{formatting.recipe(recipe)} recipe, without a certificate, {_kinds(results)}: V-score {scores}{beside}."


def _kinds(results: Sequence[ReconstructionResult]) -> str:
    names = formatting.in_order((result.attention for result in results), formatting.KINDS)
    return f"{formatting.kind(names[0])} attention" if len(names) == 1 else f"{len(names)} kinds of attention"


def _images(results: Sequence[ReconstructionResult]) -> str:
    """The number of test images and a space, or nothing where the results differ in it."""
    numbers = {result.images for result in results}
    return f"{numbers.pop():,} " if len(numbers) == 1 else ""


def _extreme(pick: Callable[[Sequence[float]], float], values: Sequence[float]) -> float | None:
    """The extreme value; None where one is not a number, which no extreme may hide."""
    return pick(values) if values and not any(math.isnan(value) for value in values) else None


def _range(values: Sequence[float]) -> str:
    low, high = (formatting.share(_extreme(pick, values), decimals=1) for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def tiles(record: ReconstructionRecord) -> list[tuple[str, str]]:
    """Return (key figure, its name), the worst over all certified blocks; none without a certificate."""
    proven = [result for result in record.results if result.certificate is not None]
    if not proven:
        return []
    metrics = [result.metrics for result in proven]
    score = formatting.share(_extreme(min, [m.v_score for m in metrics]), decimals=1)
    worst = formatting.error(_extreme(max, [m.mse_max for m in metrics]), digits=1)
    mean, most = (_extreme(max, [getattr(m, f"evaluations_{name}") for m in metrics]) for name in ("mean", "max"))
    bounds = [_number(result.certificate, "bound") for result in proven]
    return [
        (score, "lowest V-score"),
        (worst, "largest MSE of any image"),
        (formatting.mean_and_most(mean, most), "evaluations per image, mean / most"),
        (formatting.bound(_extreme(max, bounds)), "largest proven Lipschitz bound"),
    ]


def _number(values: object, key: str) -> float:
    value = values.get(key) if isinstance(values, dict) else None
    return float(value) if isinstance(value, (int, float)) else float("nan")
