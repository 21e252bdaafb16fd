"""Measures of predicted maps against binary masks: S, F, weighted F, E and MAE, as PySODMetrics computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from py_sod_metrics import MAE, Emeasure, FmeasureHandler, FmeasureV2, Smeasure, WeightedFmeasure

from invattn.experiments.camouflage.record import MapMetrics

GreyImage = NDArray[np.uint8]
"""Shape (H, W), 0 to 255."""

Curve = NDArray[np.float64]

ALPHA = 0.5
"""Weight of the object-aware part of the S-measure."""

BETA_SQUARED = 0.3
"""Weight of precision in the F-measure."""

THRESHOLDS = 256

MASK_THRESHOLD = 128
"""A pixel of a mask belongs to the object when it is lighter than this."""


@dataclass(frozen=True, kw_only=True)
class MapScores:
    """What was measured over all maps of a set.

    Attributes:
        metrics: Means over maps, as the record holds them.
        f_curve: F-measure at the thresholds 255, 254, ... 0, mean over maps, shape (256,).
        e_curve: E-measure at the same thresholds, likewise.
        s_each: S-measure of each map, shape (images,).
    """

    metrics: MapMetrics
    f_curve: Curve
    e_curve: Curve
    s_each: Curve


class MapMeasures:
    """Collects maps one by one and measures them together.

    Each map is stretched so that its smallest value is 0 and its largest 1, as the reference does.

    References:
        Fan et al. 2017 (S-measure), Achanta et al. 2009 (F), Margolin et al. 2014 (weighted F), Fan et al. 2018 (E);
        github.com/lartpang/PySODMetrics.
    """

    def __init__(self) -> None:
        self._f_handler = FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=BETA_SQUARED)
        self._f = FmeasureV2(metric_handlers={"f": self._f_handler})
        self._s, self._e, self._weighted, self._mae = _WholeSmeasure(ALPHA), Emeasure(), WeightedFmeasure(), MAE()
        self._images = 0

    def add(self, prediction: GreyImage, mask: GreyImage) -> None:
        """Take a map of any size into account; another size than the mask's is resized to it.

        Args:
            prediction: The map, shape (h, w): lighter is more likely an object.
            mask: The truth, shape (H, W): above 128 is the object.

        Raises:
            ValueError: If one of the two is no 8-bit grey image.
        """
        for name, image in (("prediction", prediction), ("mask", mask)):
            if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
                raise ValueError(f"the {name} must be uint8 with shape (H, W); got {image.dtype} {image.shape}.")
        prediction = resize_map(prediction, height=mask.shape[0], width=mask.shape[1])
        for measure in (self._f, self._s, self._e, self._weighted, self._mae):
            measure.step(prediction, mask)
        self._images += 1

    def scores(self) -> MapScores:
        """Return the measures of all maps so far.

        Raises:
            ValueError: If there is none.
        """
        if not self._images:
            raise ValueError("there is nothing to measure; add at least one map.")
        f_measure, e_measure = self._f.get_results()["f"], self._e.get_results()["em"]
        f_curve, e_curve = _curve(f_measure["dynamic"]), _curve(e_measure["curve"])
        metrics = MapMetrics(
            s_measure=float(self._s.get_results()["sm"]),
            f_mean=float(f_curve.mean()),
            f_max=float(f_curve.max()),
            f_adaptive=float(f_measure["adaptive"]),
            f_weighted=float(self._weighted.get_results()["wfm"]),
            e_mean=float(e_curve.mean()),
            e_max=float(e_curve.max()),
            e_adaptive=float(e_measure["adp"]),
            mae=float(self._mae.get_results()["mae"]),
            images=self._images,
        )
        s_each = np.asarray(self._s.sms, dtype=np.float64)
        return MapScores(metrics=metrics, f_curve=f_curve, e_curve=e_curve, s_each=s_each)


def resize_map(image: GreyImage, *, height: int, width: int) -> GreyImage:
    """Resize an 8-bit map bilinearly, as OpenCV does and therefore most published evaluations do.

    Args:
        image: Shape (h, w).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        uint8, shape (height, width); the map itself where it has that size.
    """
    if image.shape == (height, width):
        return image
    resized = cv2.resize(image, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


class _WholeSmeasure(Smeasure):  # type: ignore[misc]
    """The S-measure, also where the object touches the last row or column only.

    There one of the four parts around the object's centre is empty. Its weight is 0, but the reference takes the mean
    of no pixel for it and returns NaN.
    """

    def ssim(self, pred: Any, gt: Any) -> float:
        """Return the similarity of one part."""
        return 0.0 if pred.size == 0 else float(super().ssim(pred, gt))


def _curve(values: Any) -> Curve:
    curve = np.asarray(values, dtype=np.float64)
    assert curve.shape == (THRESHOLDS,), "one value for each threshold"
    return curve
