"""The human correction effort, of which PySODMetrics' published value depends on the version of OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from py_sod_metrics import HumanCorrectionEffortMeasure


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
