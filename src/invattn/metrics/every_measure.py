"""Every measure that PySODMetrics publishes a reference value of, under the name it has there."""

from __future__ import annotations

import numpy as np
from py_sod_metrics.utils import validate_and_normalize_input

from invattn.metrics.camouflage import GreyImage, MapMeasures, MapScores
from invattn.metrics.context_measures import CamouflageContext, Context
from invattn.metrics.correction_effort import HumanCorrectionEffort
from invattn.metrics.multi_scale_iou import MultiScaleIoU
from invattn.metrics.object_regions import object_boxes, object_error, object_regions
from invattn.metrics.region_scores import AREAS, FORMULAS, Region, RegionScores

REFERENCE_NAMES = {
    "Smeasure": "s_measure",
    "meanFm": "f_mean",
    "maxFm": "f_max",
    "adpFm": "f_adaptive",
    "wFmeasure": "f_weighted",
    "meanEm": "e_mean",
    "maxEm": "e_max",
    "adpEm": "e_adaptive",
    "MAE": "mae",
}
"""The reference's name -> attribute of ``MapScores``."""


class EveryMeasure:
    """Collects maps one by one and measures them by every formula of the reference.

    The names are those of ``version_performance.json`` beside the reference's examples: ``adp`` is at twice the mean of
    the map, ``mean`` and ``max`` are of a curve over 256 thresholds, ``bi`` is above 1/2; ``sample`` averages over
    images, ``overall`` over the set; ``si`` weighs every object of a mask equally.

    References:
        github.com/lartpang/PySODMetrics, ``examples``.
    """

    def __init__(self) -> None:
        self._nine, self._images, self._objects = MapMeasures(), RegionScores(), RegionScores()
        self._errors: list[float] = []
        self._scales = MultiScaleIoU(with_dynamic=True, with_adaptive=True, with_binary=True)
        self._plain_scales = MultiScaleIoU(with_dynamic=False, with_adaptive=False, with_binary=True)
        self._effort, self._context, self._camouflage = HumanCorrectionEffort(), Context(), CamouflageContext()

    def add(self, prediction: GreyImage, mask: GreyImage, *, picture: GreyImage | None = None) -> None:
        """Take a map into account.

        Args:
            prediction: The map, shape (H, W): lighter is more likely an object.
            mask: The truth, shape (H, W): above 128 is the object.
            picture: What the map is of, uint8 RGB with shape (H, W, 3): ``ccm`` needs it, for every map or for none.

        Raises:
            ValueError: If one of them is no 8-bit image, or they differ in size.
        """
        if prediction.shape != mask.shape:
            raise ValueError(f"map and mask must have one shape; got {prediction.shape} and {mask.shape}: resize_map.")
        if picture is not None and (picture.shape != (*mask.shape, 3) or picture.dtype != np.uint8):
            raise ValueError(
                f"the picture must be uint8 with shape {(*mask.shape, 3)}; got {picture.dtype} {picture.shape}."
            )
        self._nine.add(prediction, mask)
        stretched, objects = validate_and_normalize_input(prediction, mask)
        self._images.add([Region(stretched, objects)])
        boxes = object_boxes(objects)
        self._objects.add(object_regions(stretched, objects, boxes))
        self._errors.append(object_error(stretched, objects, boxes))
        for measure in (self._scales, self._effort, self._context):
            measure.step(prediction, mask)
        # MSIOU is the oldest form: of the map as it is, neither stretched nor looked at above 1/2 of its range.
        self._plain_scales.step((prediction > 128).astype(np.float64), mask > 128, normalize=False)
        if picture is not None:
            self._camouflage.step(prediction, mask, img=picture)

    def nine(self) -> MapScores:
        """Return the measures that are computed of all maps, as ``MapMeasures`` does.

        Raises:
            ValueError: If there is no map.
        """
        return self._nine.scores()

    def scores(self) -> dict[str, float]:
        """Return name -> value over all maps so far, sorted by name.

        Raises:
            ValueError: If there is none, or only some had pictures.
        """
        nine = self.nine()
        found = {name: float(getattr(nine, attribute)) for name, attribute in REFERENCE_NAMES.items()}
        found |= self._image_scores() | self._object_scores() | self._scale_scores()
        found["HCE"] = float(self._effort.get_results()["hce"])
        found["cm"] = float(self._context.get_results()["cm"])
        pictures = len(self._camouflage.scores)
        if pictures:
            if pictures != nine.images:
                raise ValueError(f"ccm needs a picture for each map; got {pictures} for {nine.images}.")
            found["ccm"] = float(self._camouflage.get_results()["ccm"])
        return dict(sorted(found.items()))

    def _image_scores(self) -> dict[str, float]:
        every = self._images
        found = {f"auc_{name}": every.area(name) for name in AREAS}
        for name in FORMULAS:
            curve = every.curve(name)
            found |= {f"mean{name}": float(curve.mean()), f"max{name}": float(curve.max())}
            found |= {f"adp{name}": every.mean(f"adp{name}"), f"sample_bi{name}": every.mean(f"bi{name}")}
            found[f"overall_bi{name}"] = every.overall(name)
        return found

    def _object_scores(self) -> dict[str, float]:
        every = self._objects
        found = {"si_mae": float(np.mean(self._errors))}
        for name in AREAS:
            # Published are equal values of both, those of single curves; the area under the mean curve is another.
            found |= {f"si_{over}_auc_{name}": every.mean(f"auc_{name}") for over in ("overall", "sample")}
        for name in FORMULAS:
            curve = every.curve(name)
            found |= {f"si_overall_mean{name}": float(curve.mean()), f"si_overall_max{name}": float(curve.max())}
            found[f"si_overall_bi{name}"] = every.overall(name)
            found |= {f"si_sample_{form}{name}": every.mean(f"{form}{name}") for form in ("mean", "max", "adp", "bi")}
        return found

    def _scale_scores(self) -> dict[str, float]:
        scales = self._scales.get_results()
        return {
            "adpmsiou": float(scales["adaptive"]),
            "meanmsiou": float(scales["dynamic"].mean()),
            "maxmsiou": float(scales["dynamic"].max()),
            "sample_bimsiou": float(scales["binary"]),
            "MSIOU": float(self._plain_scales.get_results()["binary"]),
        }
