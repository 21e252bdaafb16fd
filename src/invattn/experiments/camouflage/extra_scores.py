"""Every measure that PySODMetrics publishes a reference value of, under the name it has there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from py_sod_metrics import (
    BERHandler,
    CamouflageContextMeasure,
    ContextMeasure,
    DICEHandler,
    FmeasureHandler,
    FmeasureV2,
    FPRHandler,
    HumanCorrectionEffortMeasure,
    IOUHandler,
    KappaHandler,
    MSIoU,
    OverallAccuracyHandler,
    PrecisionHandler,
    RecallHandler,
    SpecificityHandler,
)
from py_sod_metrics.size_invariance import parse_connected_components
from py_sod_metrics.utils import validate_and_normalize_input
from scipy import ndimage

from invattn.experiments.camouflage.scores import GreyImage, MapMeasures, MapScores

PATCH = 7
"""Side in pixels of the patches that the camouflage degree compares; smaller pictures have none."""

FLATTEST = 1e-9
"""Smallest ratio of a determinant to its largest possible value at which a covariance matrix is inverted."""


class Context(ContextMeasure):  # type: ignore[misc]
    """The context measure, also where all pixels of the object lie on one line and their covariance has no inverse.

    References:
        Wang et al. 2025, "Context-measure: contextualizing metric for camouflage".
    """

    def _gaussian_kernel(self, x_dis: int, y_dis: int, cov_matrix: Any) -> Any:
        return super()._gaussian_kernel(x_dis, y_dis, _invertible(cov_matrix))


class CamouflageContext(CamouflageContextMeasure):  # type: ignore[misc]
    """The context measure that weighs pixels by how well they are camouflaged, for any mask and picture.

    References:
        Wang et al. 2025, "Context-measure: contextualizing metric for camouflage".
    """

    def _gaussian_kernel(self, x_dis: int, y_dis: int, cov_matrix: Any) -> Any:
        return super()._gaussian_kernel(x_dis, y_dis, _invertible(cov_matrix))

    def step(self, pred: Any, gt: Any, *, img: Any, normalize: bool = True) -> None:
        """Take a map, its mask and the RGB picture into account; without a patch no pixel counts as camouflaged."""
        if min(gt.shape) < PATCH:
            ContextMeasure.step(self, pred, gt, normalize=normalize)
        else:
            super().step(pred, gt, img=img, normalize=normalize)


def _invertible(covariance: Any) -> NDArray[np.float64]:
    """Return a covariance matrix, shape (2, 2), with a little breadth where it has none: a heuristic."""
    matrix = np.asarray(covariance, dtype=np.float64)
    largest = matrix[0, 0] * matrix[1, 1]
    if np.linalg.det(matrix) > FLATTEST * largest:
        return matrix
    breadth: NDArray[np.float64] = FLATTEST * np.trace(matrix) * np.eye(2)
    return matrix + breadth


class HumanCorrectionEffort(HumanCorrectionEffortMeasure):  # type: ignore[misc]
    """The human correction effort, with polygons as OpenCV simplified them up to version 4.12.

    Since 4.13 OpenCV measures how far a point is from a polygon's side, before from the line through it: more points
    stay. The published value is of a version before.

    References:
        Qin et al. 2022, "Highly accurate dichotomous image segmentation"; Douglas and Peucker 1973.
    """

    def count_polygon_control_points(self, boundaries: Any, epsilon: float = 1.0) -> int:
        """Return the number of points that the simplified boundaries keep."""
        return sum(len(simplify(np.asarray(boundary).reshape(-1, 2), epsilon=epsilon)) for boundary in boundaries)


def simplify(points: NDArray[np.integer[Any]], *, epsilon: float) -> list[tuple[int, int]]:
    """Return the points that an open polyline keeps when none may be further than epsilon from a line through two kept.

    Args:
        points: Whole numbers, shape (n, 2), n >= 1.
        epsilon: A distance in pixels.

    Returns:
        The kept points in their order.
    """
    count = len(points)
    if count == 1:
        return [_pair(points[0])]
    path, last = points.astype(np.int64), count - 1
    if (path[0] != path[last]).any():
        kept = [*_kept(path, 0, last, epsilon), last]
    else:  # a closed path has no line from end to end: it is cut at the point that is furthest from its first one
        far = int(((path - path[0]) ** 2).sum(axis=1).argmax())
        if ((path[far] - path[0]) ** 2).sum() <= epsilon**2:
            return [_pair(path[0])]
        kept = _kept(path, 0, far, epsilon) + _kept(path, far, last, epsilon)
    return _without_middles([_pair(path[position]) for position in kept], epsilon=epsilon)


def _kept(path: NDArray[np.int64], first: int, last: int, epsilon: float) -> list[int]:
    """Return the positions that are kept from ``first``, included, to ``last``, excluded."""
    found, open_parts = [], [(first, last)]
    while open_parts:
        first, last = open_parts.pop()
        between = path[first + 1 : last] - path[first]
        if not len(between):
            found.append(first)
            continue
        along = path[last] - path[first]
        areas = np.abs(between[:, 1] * along[0] - between[:, 0] * along[1])
        furthest = int(areas.argmax())
        if float(areas[furthest]) ** 2 <= epsilon**2 * float(along @ along):
            found.append(first)
        else:
            middle = first + 1 + furthest
            open_parts += [(middle, last), (first, middle)]
    return found


def _without_middles(points: Sequence[tuple[int, int]], *, epsilon: float) -> list[tuple[int, int]]:
    """Leave out points that lie nearly between their neighbours, as OpenCV does at last; two in a row never go."""
    total, kept, position = len(points), [points[0]], 1
    start, remaining = points[0], len(points)
    while position < total - 1 and remaining > 2:
        point, end = points[position], points[position + 1]
        (dx, dy), (px, py) = (end[0] - start[0], end[1] - start[1]), (point[0] - start[0], point[1] - start[1])
        onward = px * (end[0] - point[0]) + py * (end[1] - point[1])
        flat = (px * dy - py * dx) ** 2 <= 0.5 * epsilon**2 * (dx**2 + dy**2)
        if flat and dx and dy and onward >= 0:
            remaining -= 1
            kept.append(end)
            start, position = end, position + 2
        else:
            kept.append(point)
            start, position = point, position + 1
    return kept + list(points[position:])


def _pair(point: NDArray[Any]) -> tuple[int, int]:
    return int(point[0]), int(point[1])


Mask = NDArray[np.bool_]

BUFFER = 8192
"""Numbers that NumPy 1 adds up before it rounds."""

EXACT_IN_HALF, LARGEST_HALF = 2048, 65504
"""Up to where half precision holds every whole number, and its largest number."""


class MultiScaleIoU(MSIoU):  # type: ignore[misc]
    """The multi-scale IoU with the arithmetic that its published values come from, whatever NumPy is installed.

    It differs from the reference in four points: (1) the reference counts edge pixels in half precision; NumPy 1, which
    the published values are of, rounded after every 8192 pixels and not once more when 1 is added, as NumPy 2 does: up
    to 1e-5 lie between them; (2) edges are found in whole numbers, where the reference filters booleans and relies on
    their overflow; (3) every grid of cells is made of the next finer one; (4) the area is ``np.trapezoid``'s, which
    every NumPy 2 has.

    References:
        Ahmadzadeh et al. 2021, "Multiscale IOU".
    """

    def get_edge(self, mask: Any) -> Mask:
        """Return where a Sobel filter along rows or columns is not 0, shape (H, W); outside is no object."""
        inside = np.pad(np.asarray(mask).astype(np.int8), 1)
        down, right = inside[2:] - inside[:-2], inside[:, 2:] - inside[:, :-2]
        edge: Mask = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) != 0
        edge |= (right[:-2] + 2 * right[1:-1] + right[2:]) != 0
        return edge

    def multi_scale_iou(self, pred_edge: Any, gt_edge: Any, gt_shrunk_cache: Any = None) -> list[float]:
        """Return the share of the mask's cells with an edge that the map's edges meet, for each cell size."""
        levels = len(self.cell_sizes)
        mask_cells = gt_shrunk_cache or _grids(gt_edge, levels=levels)
        ratios: list[float] = []
        for found, true in zip(_grids(pred_edge, levels=levels), mask_cells, strict=True):
            ratios.append((np.count_nonzero(found & true) + 1) / (_count(true) + 1))
        return ratios

    def binarizing(self, pred_bin: Any, gt_edge: Any, gt_shrunk_cache: Any = None) -> float:
        """Return the area under the ratios."""
        ratios = self.multi_scale_iou(self.get_edge(pred_bin), gt_edge, gt_shrunk_cache)
        return float(np.trapezoid(ratios, dx=1 / (len(self.cell_sizes) - 1)))


def _grids(edge: Mask, *, levels: int) -> list[Mask]:
    """Return which cells of sides 1, 2, 4, ... hold an edge; the last cell ends with the last pixel."""
    grids = [edge]
    while len(grids) < levels:
        rows, columns = grids[-1].shape
        even = np.pad(grids[-1], ((rows % 2, 0), (columns % 2, 0)))
        grids.append(even[::2, ::2] | even[::2, 1::2] | even[1::2, ::2] | even[1::2, 1::2])
    return grids


def _count(cells: Mask) -> float:
    """Count as NumPy 1 does in half precision: rounded after every buffer, where half precision can hold the number."""
    exact = np.count_nonzero(cells)
    if exact <= EXACT_IN_HALF or exact > LARGEST_HALF:
        return float(exact)
    total, flat = 0.0, cells.ravel()
    for start in range(0, flat.size, BUFFER):
        total = float(np.float16(min(total + np.count_nonzero(flat[start : start + BUFFER]), LARGEST_HALF)))
    return total


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


BoolMask = NDArray[np.bool_]

Box = tuple[slice, slice]
"""Rows and columns."""


def object_boxes(mask: BoolMask) -> list[Box]:
    """Return the upright box of each object of a mask.

    An object is a connected part of at least 50 pixels; where none is as large, each of the largest parts. PySODMetrics
    numbers boxes by bits, which ends at 52 objects, and refuses a mask without background; here both are as others.
    """
    _, labels = parse_connected_components(mask)
    return [(rows, columns) for rows, columns in ndimage.find_objects(labels)]


def object_regions(prediction: Values, mask: BoolMask, boxes: Sequence[Box]) -> Iterator[Region]:
    """Yield the map and the mask inside each box, the whole image where there is none."""
    if not boxes:
        yield Region(prediction, mask)
    for box in boxes:
        inside = Region(np.zeros_like(prediction), np.zeros_like(mask))
        inside.prediction[box], inside.mask[box] = prediction[box], mask[box]
        yield inside


def object_error(prediction: Values, mask: BoolMask, boxes: Sequence[Box]) -> float:
    """Return the mean absolute error in which every box weighs 1, and what lies outside of all by its relative area.

    Args:
        prediction: 0 to 1, shape (H, W).
        mask: Shape (H, W).
        boxes: Those of the objects.

    References:
        Li et al. 2024, "Size-invariance matters".
    """
    error = np.abs(prediction - mask)
    if not boxes:
        return float(error.mean())
    outside = np.ones_like(mask)
    for box in boxes:
        outside[box] = False
    area = int(np.count_nonzero(outside))
    weight = area / (mask.size - area)
    total = sum(float(error[box].mean()) for box in boxes)
    if area:
        total += weight * float(error[outside].mean())
    return total / (len(boxes) + weight)


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
