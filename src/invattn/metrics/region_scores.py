"""Measures of a thresholded map in its true and false positives and negatives, of images or of their objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from py_sod_metrics import (
    BERHandler,
    DICEHandler,
    FmeasureHandler,
    FmeasureV2,
    FPRHandler,
    IOUHandler,
    KappaHandler,
    OverallAccuracyHandler,
    PrecisionHandler,
    RecallHandler,
    SpecificityHandler,
)

Values = NDArray[np.float64]

FORMULAS = {
    "fm": FmeasureHandler(False, False, beta=0.3),
    "f1": FmeasureHandler(False, False, beta=1),
    "pre": PrecisionHandler(False, False),
    "rec": RecallHandler(False, False),
    "fpr": FPRHandler(False, False),
    "iou": IOUHandler(False, False),
    "dice": DICEHandler(False, False),
    "spec": SpecificityHandler(False, False),
    "ber": BERHandler(False, False),
    "oa": OverallAccuracyHandler(False, False),
    "kappa": KappaHandler(False, False),
}
"""Name -> formula in the numbers tp, fp, tn, fn; PySODMetrics' own."""

AREAS = {"pr": ("rec", "pre"), "roc": ("fpr", "rec")}
"""Name of a curve over all thresholds -> what stands on its two axes."""


@dataclass(frozen=True)
class Region:
    """A stretched map and its mask; outside of the region both are 0.

    Attributes:
        prediction: 0 to 1, shape (H, W).
        mask: The object, shape (H, W).
    """

    prediction: Values
    mask: NDArray[np.bool_]


class RegionScores:
    """Collects regions, one or several of an image, and scores them by every formula.

    PySODMetrics' ``FmeasureV2`` is the case of one region an image, ``SizeInvarianceFmeasureV2`` that of one region an
    object. Sums are kept instead of every curve, and counts over a set as floats, which do not overflow.

    Attributes:
        images: How many images were collected.
    """

    def __init__(self) -> None:
        self.images = 0
        self._regions = 0
        self._counter = FmeasureV2()
        self._curves: dict[str, Values] = {}
        self._sums: dict[str, float] = {}
        self._totals = dict.fromkeys(("tp", "fp", "tn", "fn"), 0.0)

    def add(self, regions: Iterable[Region]) -> None:
        """Take the regions of one image into account.

        Args:
            regions: At least one.
        """
        count, sums = 0, dict[str, float]()
        for region in regions:
            count += 1
            for name, score in self._score(region).items():
                sums[name] = sums.get(name, 0.0) + score
        for name, total in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + total / count
        self.images += 1
        self._regions += count

    def curve(self, name: str) -> Values:
        """Return a formula's mean over all regions at the thresholds 255 to 0, shape (256,)."""
        return self._curves[name] / self._regions

    def area(self, name: str) -> float:
        """Return the area under one of :data:`AREAS`, made of mean curves."""
        across, up = AREAS[name]
        return area_under(self.curve(up), self.curve(across))

    def mean(self, name: str) -> float:
        """Return the mean over images of the mean over an image's regions.

        Args:
            name: A form of a formula, ``mean``, ``max``, ``adp`` or ``bi`` and its name, or ``auc_`` and the name of
                one of :data:`AREAS`.
        """
        return self._sums[name] / self.images

    def overall(self, name: str) -> float:
        """Return a formula of the counts above 1/2 of all regions together."""
        return float(FORMULAS[name](**self._totals))

    def _score(self, region: Region) -> dict[str, float]:
        objects = int(np.count_nonzero(region.mask))
        given = {"gt": region.mask, "FG": objects, "BG": region.mask.size - objects}
        curves = _values(self._counter.dynamically_binarizing(region.prediction, **given))
        adaptive = _values(self._counter.adaptively_binarizing(region.prediction, **given))
        counts = self._counter.get_statistics(region.prediction > 0.5, **given)
        for name, count in counts.items():
            self._totals[name] += float(count)
        binary = _values(counts)
        for name, curve in curves.items():
            self._curves[name] = self._curves.get(name, 0.0) + curve
        scores: dict[str, float] = {}
        for name, curve in curves.items():
            scores |= {f"mean{name}": float(curve.mean()), f"max{name}": float(curve.max())}
            scores |= {f"adp{name}": float(adaptive[name]), f"bi{name}": float(binary[name])}
        areas = {f"auc_{name}": area_under(curves[up], curves[across]) for name, (across, up) in AREAS.items()}
        return scores | areas


def area_under(up: Values, across: Values) -> float:
    """Return the area under a curve whose points are given from the highest threshold to the lowest.

    Args:
        up: Heights, shape (n,).
        across: Places, shape (n,), none further left than the one before: a share of pixels above falling thresholds.
    """
    return float(np.trapezoid(up, across))


def _values(counts: Mapping[str, Any]) -> dict[str, Values]:
    # PySODMetrics divides in place where a denominator is an array: it gets floats, and none is shared.
    return {
        name: np.asarray(formula(**{part: np.array(count, dtype=np.float64) for part, count in counts.items()}))
        for name, formula in FORMULAS.items()
    }
