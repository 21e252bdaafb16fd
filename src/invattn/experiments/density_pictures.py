"""Samples of a flow as one small picture, drawn without a plotting library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

REACH = 6.5
"""Points are shown where both coordinates lie within this distance of 0."""

_PANEL = 96
_WHITE, _BLUE = (255, 255, 255), (31, 119, 180)


def picture_of_sets(sets: Tensor) -> NDArray[np.uint8]:
    """Return sets of points of the plane side by side as dots, the second coordinate upwards.

    Args:
        sets: Shape (n, N, 2); points that are far away or not finite are left out.

    Returns:
        Red, green and blue, shape (96, 97 n - 1, 3).
    """
    panels = []
    for points in sets.detach().cpu().double().numpy():
        panel = np.full((_PANEL, _PANEL, 3), _WHITE, dtype=np.uint8)
        inside = points[np.abs(points).max(axis=1) < REACH]
        columns, rows = ((inside / REACH + 1) / 2 * (_PANEL - 1)).astype(np.int64).T
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            panel[_PANEL - 2 - rows + down, columns + right] = _BLUE
        panels += [panel, np.zeros((_PANEL, 1, 3), dtype=np.uint8)]
    return np.concatenate(panels[:-1], axis=1)
