"""The arrays behind the figures of a flow over images; their names and shapes are fixed here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invattn.experiments.density.blocks import block_effects, receptive_fields
from invattn.experiments.density.likelihood import block_inputs
from invattn.experiments.density.sampling import draw_samples, interpolate, nearest_images
from invattn.experiments.kit.arrays import Arrays
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Flow

TEMPERATURES = (0.7, 0.8, 1.0)
"""Temperatures of the samples on the page of a run; 1 is the model itself."""

SHOWN = 36
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


def to_pictures(x: Tensor, *, levels: int) -> Tensor:
    """Return samples as pictures (..., H, W, 3), uint8; what is not finite becomes middle grey.

    Args:
        x: (v + u) / levels - 0.5, v = 0 ... levels - 1 and u in [0, 1); shape (..., C, H, W), C = 1 or 3.
        levels: Number of grey levels.
    """
    level = (levels * (x.detach().double().cpu() + 0.5)).floor()
    shade = level.clamp(0, levels - 1) * (255 / (levels - 1))
    colour = shade.nan_to_num(nan=128.0).round().to(torch.uint8).movedim(-3, -1)
    return colour.expand(*colour.shape[:-1], 3).contiguous()


def make_image_figures(
    flow: Flow, train: Tensor, test: Tensor, *, losses: Sequence[float], seed: int, levels: int = 256
) -> Arrays:
    """Return all arrays of a trained flow over images.

    Args:
        flow: The trained distribution of images, in eval mode.
        train: Training images as the flow takes them, shape (n, C, H, W).
        test: Test images, shape (m, C, H, W), at least two.
        losses: Training loss of every step, nats per dimension.
        seed: Decides samples and probes.
        levels: Number of grey levels of the images.

    Returns:
        Array name -> values. ``block_*`` and ``field_*`` are missing where the flow is too large for them, or has no
        residual block over images.
    """
    test = test.to(next(flow.bijection.parameters()))
    arrays = {
        "losses": np.asarray(losses, dtype=np.float64),
        "real_images": to_pictures(test[:SHOWN], levels=levels).numpy(),
    }
    arrays |= sample_arrays(flow, TEMPERATURES, SHOWN, seed=seed, levels=levels)
    arrays |= walk_arrays(flow, test, walks=WALKS, steps=WALK_STEPS, levels=levels)
    samples = draw_samples(flow, COMPARED, seed=derive_seed(seed, "compared samples")).values
    arrays |= neighbour_arrays(samples, train, count=NEIGHBOURS, levels=levels)
    return arrays | effect_arrays(flow, test, seed=seed) | field_arrays(flow, test[:FIELD_IMAGES])


def sample_arrays(flow: Flow, temperatures: Sequence[float], count: int, *, seed: int, levels: int) -> Arrays:
    """Return samples from the same base draws at several temperatures.

    Returns:
        ``sample_temperatures`` (T,), ``sample_images`` (T, count, H, W, 3) uint8, and ``sample_failed`` (T, count)
        uint8: 1 where the inverse did not reach its tolerance or the sample is not finite.
    """
    drawn = [draw_samples(flow, count, seed=seed, temperature=temperature) for temperature in temperatures]
    return {
        "sample_temperatures": np.asarray(temperatures, dtype=np.float64),
        "sample_images": torch.stack([to_pictures(part.values, levels=levels) for part in drawn]).numpy(),
        "sample_failed": torch.stack([~(part.converged & part.finite) for part in drawn])
        .cpu()
        .numpy()
        .astype(np.uint8),
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
    numbers = {name: [getattr(effect, name) for effect in effects] for name in ("log_det", "size")}
    numbers |= {name: [getattr(effect, name) for effect in effects] for name in ("change", "change_error")}
    arrays: Arrays = {f"block_{name}": np.asarray(values, dtype=np.float64) for name, values in numbers.items()}
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
