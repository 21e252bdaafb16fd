"""The multi-scale IoU, of which PySODMetrics' published values depend on the version of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from py_sod_metrics import MSIoU

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
