"""Samples of a flow as one small picture, drawn without a plotting library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

REACH = 6.5
"""Points are shown where both coordinates lie within this distance of 0."""

_PANEL = 96
_WHITE, _BLUE = (255, 255, 255), (31, 119, 180)


def picture_of(samples: Tensor) -> NDArray[np.uint8]:
    """Return samples as a picture: images side by side, the points of the plane or of each set as dots.

    Args:
        samples: Images (n, C, H, W) in [-0.5, 0.5), sets (n, N, 2), or points (n, 2).
    """
    if samples.dim() == 4:
        return picture_of_images(samples)
    return picture_of_sets(samples if samples.dim() == 3 else samples[None])


def picture_of_images(images: Tensor) -> NDArray[np.uint8]:
    """Return images side by side.

    Args:
        images: Shape (n, C, H, W) with one or three channels, in [-0.5, 0.5); what lies outside is clipped.

    Returns:
        Red, green and blue, shape (H, n (W + 1) - 1, 3).
    """
    levels = (256 * (images.detach().cpu().double().nan_to_num() + 0.5)).floor().clamp(0, 255)
    colours = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    between = np.zeros((colours.shape[1], 1, 3), dtype=np.uint8)
    panels = [part for image in colours for part in (image, between)]
    return np.concatenate(panels[:-1], axis=1)


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
