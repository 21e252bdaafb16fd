"""The objects of a mask one by one, for measures in which a small object weighs as much as a large one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from py_sod_metrics.size_invariance import parse_connected_components
from scipy import ndimage

from invattn.metrics.region_scores import Region, Values

Mask = NDArray[np.bool_]

Box = tuple[slice, slice]
"""Rows and columns."""


def object_boxes(mask: Mask) -> list[Box]:
    """Return the upright box of each object of a mask.

    An object is a connected part of at least 50 pixels; where none is as large, each of the largest parts. PySODMetrics
    numbers boxes by bits, which ends at 52 objects, and refuses a mask without background; here both are as others.
    """
    _, labels = parse_connected_components(mask)
    return [(rows, columns) for rows, columns in ndimage.find_objects(labels)]


def object_regions(prediction: Values, mask: Mask, boxes: Sequence[Box]) -> Iterator[Region]:
    """Yield the map and the mask inside each box, the whole image where there is none."""
    if not boxes:
        yield Region(prediction, mask)
    for box in boxes:
        inside = Region(np.zeros_like(prediction), np.zeros_like(mask))
        inside.prediction[box], inside.mask[box] = prediction[box], mask[box]
        yield inside


def object_error(prediction: Values, mask: Mask, boxes: Sequence[Box]) -> float:
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
