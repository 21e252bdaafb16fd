"""The arrays behind the figures of a flow over points of the plane: its density, its samples, and the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invattn.evaluation import draw_samples, with_estimator
from invattn.experiments.figure_data import Arrays
from invattn.flows import Flow
from invattn.logdet import Exact

SIDE = 100
"""Places of the density's grid along each axis."""

SHOWN = 2000
"""Points in each picture."""

_CHUNK = 2500


@torch.no_grad()
def make_plane_figures(flow: Flow, test: Tensor, *, losses: Sequence[float], seed: int) -> Arrays:
    """Return all arrays of a trained flow over points of the plane.

    Args:
        flow: The trained distribution of points, event shape (2,), in eval mode.
        test: Test points with shape (n, 2).
        losses: Training loss of every step.
        seed: Decides the samples.

    Returns:
        Array name -> values: ``losses``, ``plane_points`` and ``plane_samples`` (., 2), ``plane_density`` with
        log p at the middles of a grid's cells, shape (SIDE, SIDE), rows from low to high second coordinate, and
        ``plane_reach``: the grid spans [-reach, reach] along both axes.
    """
    reach = 1.15 * float(test.abs().max())
    side = reach * (2 * (torch.arange(SIDE, dtype=test.dtype, device=test.device) + 0.5) / SIDE - 1)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
    exact = with_estimator(flow, Exact())
    density = torch.cat([exact.log_prob(part) for part in torch.split(grid, _CHUNK)])
    return {
        "losses": np.asarray(losses, dtype=np.float64),
        "plane_points": test[:SHOWN].cpu().numpy(),
        "plane_samples": draw_samples(flow, SHOWN, seed=seed).values.cpu().numpy(),
        "plane_density": density.view(SIDE, SIDE).cpu().numpy(),
        "plane_reach": np.asarray([reach]),
    }
