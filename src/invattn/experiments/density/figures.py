"""The arrays behind the figures of a flow: over sets and points of the plane, and over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invattn.experiments.density.blocks import block_effects, receptive_fields
from invattn.experiments.density.likelihood import block_inputs, with_estimator
from invattn.experiments.density.sampling import Samples, draw_samples, interpolate, nearest_images, sample_sets
from invattn.experiments.kit.output import Arrays
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Flow
from invattn.logdet import Exact

SHOWN = 6
"""Number of sets in the pictures."""

ARRIVED = (2, 6, 16, 31)
"""After how many points of a set the density of a further one is drawn; the model is trained on sets of 32."""

SIDE, REACH = 36, 6.0
"""Places of that density's grid along each axis, from -REACH to REACH."""

PLANE_SIDE = 100
"""Places of the grid of a density of the plane along each axis."""

PLANE_SHOWN = 2000
"""Points of the plane in each picture."""

_CHUNK, _PLANE_CHUNK = 108, 2500

TEMPERATURES = (0.7, 0.8, 1.0)
"""Temperatures of the samples on the page of a run; 1 is the model itself."""

IMAGES_SHOWN = 36
"""Number of samples at each temperature, and of test images beside them."""

WALKS, WALK_STEPS = 2, 9
"""Walks through latent space on the page, and the images of each, both ends counted."""

COMPARED, NEIGHBOURS = 10, 1
"""Samples that nearest training images are searched for, and how many of each."""

FIELD_IMAGES = 8
"""Test images over which receptive fields are averaged."""

EFFECT_IMAGES = (8, 64)
"""Fewest and most test images over which the effects of blocks are averaged."""

EFFECT_BUDGET = 4e10
"""Limit of blocks x parameters x pixels x images for the effects of blocks: about a minute on one core."""


def make_density_figures(flow: Flow, test: Tensor, *, losses: list[float], seed: int) -> Arrays:
    """Return all arrays of a trained flow over point sets with shape (N, 2), at test sets with shape (n, N, 2).

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


@torch.no_grad()
def conditional_densities(flow: Flow, points: Tensor) -> Tensor:
    """Return log p(y | x_1 ... x_n) on a grid for every n of ``ARRIVED``, shape (len(ARRIVED), SIDE, SIDE).

    log p(x_1 ... x_n, y) under the model of sets of n + 1 points, with exact log-determinants, less the logarithm of
    its sum over the grid times the area of a cell; ``points`` is one set, shape (N, 2), N at least the last of
    ``ARRIVED``.
    """
    bijection = with_estimator(flow, Exact()).bijection
    side = torch.linspace(-REACH, REACH, SIDE, dtype=points.dtype)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 1, points.shape[-1])
    found = []
    for arrived in ARRIVED:
        sets = torch.cat([points[None, :arrived].expand(len(grid), -1, -1), grid], dim=1)
        pairs = [bijection.forward_and_log_det(part) for part in torch.split(sets, _CHUNK)]
        joint = torch.cat([log_det.double() - 0.5 * z.double().square().flatten(1).sum(dim=1) for z, log_det in pairs])
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


@torch.no_grad()
def make_plane_figures(flow: Flow, test: Tensor, *, losses: Sequence[float], seed: int) -> Arrays:
    """Return all arrays of a trained flow over points of the plane, in eval mode, at test points with shape (n, 2).

    Returns:
        Array name -> values: ``losses``, ``plane_points`` and ``plane_samples`` (., 2), ``plane_density`` with log p at
        the middles of a grid's cells, shape (PLANE_SIDE, PLANE_SIDE), rows by rising second coordinate, and
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


def to_pictures(x: Tensor, *, levels: int) -> Tensor:
    """Return samples as pictures (..., H, W, 3), uint8; what is not finite becomes middle grey.

    x is (v + u) / levels - 0.5, v = 0 ... levels - 1 and u in [0, 1); shape (..., C, H, W), C = 1 or 3.
    """
    level = (levels * (x.detach().double().cpu() + 0.5)).floor()
    shade = level.clamp(0, levels - 1) * (255 / (levels - 1))
    colour = shade.nan_to_num(nan=128.0).round().to(torch.uint8).movedim(-3, -1)
    return colour.expand(*colour.shape[:-1], 3).contiguous()


def make_image_figures(
    flow: Flow, train: Tensor, test: Tensor, *, losses: Sequence[float], seed: int, levels: int = 256
) -> Arrays:
    """Return all arrays of a trained flow over images.

    The flow is in eval mode; images are as it takes them, shape (n, C, H, W), at least two for the test; losses are in
    nats per dimension, one for each step.

    Returns:
        Array name -> values. ``block_*`` and ``field_*`` are missing where the flow is too large for them, or has no
        residual block over images.
    """
    test = test.to(next(flow.bijection.parameters()))
    arrays = {
        "losses": np.asarray(losses, dtype=np.float64),
        "real_images": to_pictures(test[:IMAGES_SHOWN], levels=levels).numpy(),
    }
    drawn = [draw_samples(flow, IMAGES_SHOWN, seed=seed, temperature=temperature) for temperature in TEMPERATURES]
    arrays |= sample_arrays(TEMPERATURES, drawn, levels=levels)
    arrays |= walk_arrays(flow, test, walks=WALKS, steps=WALK_STEPS, levels=levels)
    samples = draw_samples(flow, COMPARED, seed=derive_seed(seed, "compared samples")).values
    arrays |= neighbour_arrays(samples, train, count=NEIGHBOURS, levels=levels)
    return arrays | effect_arrays(flow, test, seed=seed) | field_arrays(flow, test[:FIELD_IMAGES])


def sample_arrays(temperatures: Sequence[float], drawn: Sequence[Samples], *, levels: int) -> Arrays:
    """Return samples from the same base draws at several temperatures.

    Returns:
        ``sample_temperatures`` (T,), ``sample_images`` (T, count, H, W, 3) uint8, and ``sample_failed`` (T, count)
        uint8: 1 where the inverse did not reach its tolerance or the sample is not finite.
    """
    failed = torch.stack([~(part.converged & part.finite) for part in drawn])
    return {
        "sample_temperatures": np.asarray(temperatures, dtype=np.float64),
        "sample_images": torch.stack([to_pictures(part.values, levels=levels) for part in drawn]).numpy(),
        "sample_failed": failed.cpu().byte().numpy(),
    }


def walk_arrays(flow: Flow, images: Tensor, *, walks: int, steps: int, levels: int) -> Arrays:
    """Return walks between the first images and the ones after them.

    Returns:
        ``walk_images`` (walks, steps, H, W, 3) uint8; both ends are images as the inverse gives them back.
    """
    walks = min(walks, len(images) // 2)
    found = interpolate(flow, images[:walks], images[walks : 2 * walks], steps=steps)
    pictures = to_pictures(found.values, levels=levels)
    return {"walk_images": pictures.view(walks, steps, *pictures.shape[1:]).numpy()}


def neighbour_arrays(samples: Tensor, train: Tensor, *, count: int, levels: int) -> Arrays:
    """Return samples with the training images nearest to each.

    Returns:
        ``nearest_samples`` (n, H, W, 3) and ``nearest_images`` (n, k, H, W, 3) uint8, and ``nearest_distance`` (n, k):
        root mean squared difference in grey levels.
    """
    found = nearest_images(samples, train, count=count)
    return {
        "nearest_samples": to_pictures(samples, levels=levels).numpy(),
        "nearest_images": to_pictures(train[found.index.to(train.device)], levels=levels).numpy(),
        "nearest_distance": (levels * found.distance).cpu().numpy(),
    }


def effect_arrays(flow: Flow, images: Tensor, *, seed: int) -> Arrays:
    """Return what every residual block does, in the order in which data reach them.

    Returns:
        ``block_kinds`` (K,) text, ``block_log_det``, ``block_change`` and ``block_change_error`` (K,) in nats per
        dimension, ``block_size`` (K,): see :class:`BlockEffect`. Nothing where it would take long.
    """
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    blocks = len(block_inputs(flow.bijection, images[:1]))
    work = max(1, blocks) * parameters * images[0, 0].numel()
    count = min(EFFECT_IMAGES[1], len(images), int(EFFECT_BUDGET * (100 if images.is_cuda else 1) / work))
    if blocks == 0 or count < min(EFFECT_IMAGES[0], len(images)) or count < 2:
        return {}
    effects = block_effects(flow, images[:count], seed=derive_seed(seed, "block effects"))
    arrays: Arrays = {
        f"block_{name}": np.asarray([getattr(effect, name) for effect in effects], dtype=np.float64)
        for name in ("log_det", "size", "change", "change_error")
    }
    return arrays | {"block_kinds": np.asarray([effect.kind for effect in effects])}


def field_arrays(flow: Flow, images: Tensor) -> Arrays:
    """Return receptive fields of the first scale's blocks.

    Returns:
        ``field_names`` (m,) text, ``field_maps`` (m, h, w), and ``field_place`` (2,), row and column of the middle
        place; nothing where the flow has no residual block over images.
    """
    fields = receptive_fields(flow, images)
    if not fields:
        return {}
    return {
        "field_names": np.asarray([field.what for field in fields]),
        "field_maps": torch.stack([field.values for field in fields]).cpu().numpy(),
        "field_place": np.asarray(fields[0].place),
    }
