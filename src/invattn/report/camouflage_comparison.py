"""Certified attention against its unconstrained counterpart, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from invattn.records import CamouflageRecord
from invattn.report import labels

_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5% quantiles of Student's t with 1, 2, ... 10 degrees of freedom."""

_NORMAL = 1.96


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference of the S-measure, certified less unconstrained, on one test set.

    Attributes:
        kind: Attention kind.
        dataset: Test set.
        differences: One for each seed that both were trained with.
    """

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
        return student_quantile(count - 1) * float(np.std(self.differences, ddof=1)) / math.sqrt(count)

    @property
    def label(self) -> str:
        """The reader's name of the kind."""
        return labels.kind(self.kind)

    def text(self) -> str:
        """Return mean and interval, such as ``-0.004 ± 0.012``."""
        spread = "" if math.isnan(self.half_width) else f" ± {self.half_width:.3f}"
        return f"{self.mean:+.3f}{spread}"


def comparisons(record: CamouflageRecord) -> list[Comparison]:
    """Return one comparison for each kind and test set where both forms were trained with a common seed."""
    found = []
    for kind in labels.in_order((row.attention for row in record.rows), labels.DETECTORS):
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


def student_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t, at least that of the normal distribution."""
    return _QUANTILES[freedom - 1] if freedom <= len(_QUANTILES) else _NORMAL


def mean_or_nan(values: Sequence[float]) -> float:
    """Return the mean, NaN of nothing."""
    return float(np.mean(values)) if values else math.nan
