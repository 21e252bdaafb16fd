"""The arrays behind the figures of a flow over points of the plane: its density, its samples, and the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invattn.experiments.density.likelihood import with_estimator
from invattn.experiments.density.sampling import draw_samples
from invattn.experiments.kit.arrays import Arrays
from invattn.flows import Flow
from invattn.logdet import Exact

SHOWN = 6
"""Number of samples in the pictures."""

ARRIVED = (2, 6, 16, 31)
"""After how many points of a set the density of a further one is drawn; the model is trained on sets of 32."""

SIDE = 36
REACH = 6.0
_CHUNK = 108


def make_density_figures(flow: Flow, test: Tensor, *, losses: list[float], seed: int) -> Arrays:
    """Return all arrays of a trained flow over point sets.

    Args:
        flow: The trained distribution of sets with shape (N, 2).
        test: Test sets with shape (n, N, 2).
        losses: Training loss of every step.
        seed: Decides the samples.

    Returns:
        Array name -> values. ``conditional`` holds log p(y | points so far) at the grid points y, shape
        (len(ARRIVED), SIDE, SIDE), rows from low to high second coordinate, normalised on the grid.
    """
    points = test[_clearest(test)]
    return {
        "losses": np.asarray(losses, dtype=np.float64),
        "real_sets": test[:SHOWN].numpy(),
        "sampled_sets": sample_sets(flow, SHOWN, seed=seed).numpy(),
        "conditional": conditional_densities(flow, points).numpy(),
        "conditional_points": points.numpy(),
        "conditional_arrived": np.asarray(ARRIVED),
        "conditional_reach": np.asarray([REACH]),
    }


def sample_sets(flow: Flow, count: int, *, seed: int, temperature: float = 1.0) -> Tensor:
    """Return samples with shape (count, *event), drawn from a seed.

    Args:
        flow: The distribution, with a standard normal base.
        count: How many.
        seed: Decides them.
        temperature: Factor of the base's standard deviation, above 0; 1 samples the model itself.

    Raises:
        ConvergenceError: If an inverse did not converge.
    """
    generator = torch.Generator().manual_seed(seed)
    like = next(flow.bijection.parameters())
    z = temperature * torch.randn((count, *flow.base.event_shape), generator=generator, dtype=like.dtype)
    with torch.no_grad():
        return flow.bijection.inverse(z.to(like.device))


@torch.no_grad()
def conditional_densities(flow: Flow, points: Tensor) -> Tensor:
    """Return log p(y | x_1 ... x_n) on a grid for every n of ``ARRIVED``, shape (len(ARRIVED), SIDE, SIDE).

    log p(x_1 ... x_n, y) under the model of sets of n + 1 points, with exact log-determinants, less the logarithm of
    its sum over the grid times the area of a cell.

    Args:
        flow: The distribution of sets; its bijection takes any number of points.
        points: One set, shape (N, 2), N at least the last of ``ARRIVED``.
    """
    bijection = with_estimator(flow, Exact()).bijection
    side = torch.linspace(-REACH, REACH, SIDE, dtype=points.dtype)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 1, points.shape[-1])
    found = []
    for arrived in ARRIVED:
        sets = torch.cat([points[None, :arrived].expand(len(grid), -1, -1), grid], dim=1)
        values = []
        for part in torch.split(sets, _CHUNK):
            z, log_det = bijection.forward_and_log_det(part)
            values.append(log_det.double() - 0.5 * z.double().square().flatten(1).sum(dim=1))
        joint = torch.cat(values)
        cell = float(side[1] - side[0]) ** 2
        found.append((joint - joint.logsumexp(dim=0) - np.log(cell)).view(SIDE, SIDE))
    return torch.stack(found)


def _clearest(test: Tensor) -> int:
    """Return the number of the set, among the first 50, in which three points within the grid lie furthest apart.

    The points are found greedily: the first one, the one furthest from it, the one furthest from both.
    """
    first = test[:50]
    near = (first - first[:, :1]).norm(dim=-1)
    for _ in range(2):
        furthest = near.argmax(dim=1)
        score = near.amax(dim=1)
        reached = first[torch.arange(len(first)), furthest]
        near = torch.minimum(near, (first - reached[:, None]).norm(dim=-1))
    inside = first.abs().amax(dim=(1, 2)) < 0.8 * REACH
    return int(torch.where(inside, score, -1.0).argmax())


PLANE_SIDE = 100
"""Places of the density's grid along each axis."""

PLANE_SHOWN = 2000
"""Points in each picture."""

_PLANE_CHUNK = 2500


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
        log p at the middles of a grid's cells, shape (PLANE_SIDE, PLANE_SIDE), rows by
        rising second coordinate, and
        ``plane_reach``: the grid spans [-reach, reach] along both axes.
    """
    reach = 1.15 * float(test.abs().max())
    side = reach * (2 * (torch.arange(PLANE_SIDE, dtype=test.dtype, device=test.device) + 0.5) / PLANE_SIDE - 1)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
    exact = with_estimator(flow, Exact())
    density = torch.cat([exact.log_prob(part) for part in torch.split(grid, _PLANE_CHUNK)])
    return {
        "losses": np.asarray(losses, dtype=np.float64),
        "plane_points": test[:PLANE_SHOWN].cpu().numpy(),
        "plane_samples": draw_samples(flow, PLANE_SHOWN, seed=seed).values.cpu().numpy(),
        "plane_density": density.view(PLANE_SIDE, PLANE_SIDE).cpu().numpy(),
        "plane_reach": np.asarray([reach]),
    }
