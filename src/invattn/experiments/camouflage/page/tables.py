"""The tables of a camouflage page: Table 4 beside the paper's, and what each network costs and proves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from invattn.experiments.camouflage.record import CamouflageRecord, CamouflageRow
from invattn.experiments.kit.page import formatting
from invattn.experiments.kit.record import published_detection

_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5% quantiles of Student's t with 1, 2, ... 10 degrees of freedom."""

_NORMAL = 1.96


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The S-measure, certified less unconstrained, on one test set, for each seed that both were trained with."""

    kind: str
    dataset: str
    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.differences))

    @property
    def half_width(self) -> float:
        """Half the width of the 95% interval of the mean over seeds, by Student's t; NaN for one seed."""
        count = len(self.differences)
        if count < 2:
            return math.nan
        quantile = _QUANTILES[count - 2] if count - 2 < len(_QUANTILES) else _NORMAL
        return quantile * float(np.std(self.differences, ddof=1)) / math.sqrt(count)

    @property
    def label(self) -> str:
        """The reader's name of the kind."""
        return formatting.kind(self.kind)

    def text(self) -> str:
        """Return mean and interval, such as ``-0.004 ± 0.012``."""
        spread = "" if math.isnan(self.half_width) else f" ± {self.half_width:.3f}"
        return f"{self.mean:+.3f}{spread}"


def comparisons(record: CamouflageRecord) -> list[Comparison]:
    """Return one comparison for each kind and test set where both forms were trained with a common seed."""
    found = []
    for kind in formatting.in_order((row.attention for row in record.rows), formatting.DETECTORS):
        for name in record.data.get("sets", {}):
            scores = {
                (row.recipe, row.seed): row.sets[name].s_measure
                for row in record.rows
                if row.attention == kind and name in row.sets
            }
            seeds = sorted(
                {seed for recipe, seed in scores if ("unconstrained", seed) in scores and recipe == "certified"}
            )
            if seeds:
                pairs = tuple(scores["certified", seed] - scores["unconstrained", seed] for seed in seeds)
                found.append(Comparison(kind=kind, dataset=name, differences=pairs))
    return found


def mean_or_nan(values: Sequence[float]) -> float:
    """Return the mean, NaN of nothing."""
    return float(np.mean(values)) if values else math.nan


SCORES = {"s_measure": "S", "f_mean": "F", "e_mean": "E", "mae": "MAE"}
"""The paper's columns: key -> heading. All but the last are better where they are larger."""


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One network on one test set: its means over seeds, and the paper's figures, which may be none."""

    kind: str
    label: str
    seeds: int
    ours: Mapping[str, float]
    paper: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class NetworkRow:
    """What a network costs, and what is known of its inverse; ready to print."""

    kind: str
    label: str
    parameters: str
    seconds: str
    memory: str
    bound: str
    error_max: str
    error_median: str
    converged: str
    lost: bool


def ordered_groups(record: CamouflageRecord) -> list[list[CamouflageRow]]:
    """Return the rows of each network, all seeds together, in the usual order."""
    kinds = formatting.in_order((row.attention for row in record.rows), formatting.DETECTORS)
    recipes = formatting.in_order((row.recipe for row in record.rows), ("none", "unconstrained", "paper", "certified"))
    groups: dict[tuple[int, int], list[CamouflageRow]] = {}
    for row in record.rows:
        groups.setdefault((kinds.index(row.attention), recipes.index(row.recipe)), []).append(row)
    return [groups[key] for key in sorted(groups)]


def label_of(attention: str, recipe: str) -> str:
    """Return the reader's name of a network."""
    if attention == "none":
        return formatting.DETECTORS["none"]
    return formatting.variant(attention, recipe)


def score_tables(record: CamouflageRecord) -> dict[str, list[ScoreRow]]:
    """Return Table 4, test set -> one row for each network."""
    groups = ordered_groups(record)
    return {name: [_score_row(group, name) for group in groups] for name in record.data.get("sets") or {}}


def network_rows(record: CamouflageRecord) -> list[NetworkRow]:
    """Return one row for each network: means of cost, the worst of the rest, over seeds."""
    return [_network_row(group) for group in ordered_groups(record)]


def _score_row(group: Sequence[CamouflageRow], name: str) -> ScoreRow:
    attention, recipe = group[0].attention, group[0].recipe
    known = [row.sets[name] for row in group if name in row.sets]
    return ScoreRow(
        kind=attention,
        label=label_of(attention, recipe),
        seeds=len(known),
        ours={key: mean_or_nan([getattr(metrics, key) for metrics in known]) for key in SCORES},
        paper=published_detection(attention, recipe, name) or {},
    )


def _network_row(group: Sequence[CamouflageRow]) -> NetworkRow:
    first = group[0]
    inverses = [row.inverse for row in group if row.inverse]
    bounds = [float(row.certificate["bound"]) for row in group if row.certificate]
    worst = max((_number(inverse.get("error_max")) for inverse in inverses), default=float("nan"))
    median = max((_number(inverse.get("error_median")) for inverse in inverses), default=float("nan"))
    converged = min((_number(inverse.get("converged"), missing=0.0) for inverse in inverses), default=float("nan"))
    return NetworkRow(
        kind=first.attention,
        label=label_of(first.attention, first.recipe),
        parameters=formatting.count(first.parameters),
        seconds=formatting.duration(mean_or_nan([row.seconds for row in group])),
        memory=f"{max(row.peak_memory for row in group) / 2**30:.2f} GiB",
        bound=formatting.bound(max(bounds)) if bounds and len(bounds) == len(group) else "none",
        error_max=_error(worst) if inverses else formatting.MISSING,
        error_median=_error(median) if inverses else formatting.MISSING,
        converged=formatting.share(converged, decimals=1) if inverses else formatting.MISSING,
        lost=bool(inverses) and not worst <= 1e-4,
    )


def _number(value: object, *, missing: float = float("inf")) -> float:
    """Return a measured number; what is not finite was stored as null and counts as ``missing``."""
    return float(value) if isinstance(value, (int, float)) else missing


def _error(value: float) -> str:
    if value >= 1:
        return "not finite" if value == float("inf") else f"{value:.1f}"
    return f"{value:.1e}".replace("e-0", "e-")
