"""The two context measures, for any mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from py_sod_metrics import CamouflageContextMeasure, ContextMeasure

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
