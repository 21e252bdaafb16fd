"""The arrays behind the figures of a report: pictures, errors, residuals and attention maps of one model."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invattn.bijections import Bijection
from invattn.checkpoints import ModelConfig
from invattn.data import to_pixels
from invattn.evaluation import InversionReport, PicardTrace, picard_trace, query_maps, query_points
from invattn.experiments.dequantised_images import DequantisedImages
from invattn.functional import squeeze
from invattn.metrics import clean_pixels
from invattn.recipes import Unconstrained
from invattn.records import atomic_write

Arrays = dict[str, NDArray[Any]]

SHOWN = 8
"""Number of test images in the pictures."""

CURVE_CONSTANTS = (0.5, 0.7, 0.9, 0.99)
"""The constants c of the error curves."""

TRACE_STEPS = 60
TRACE_ENTRIES = 6e8
"""Attention weights that one trace may compute: about ten seconds; a model has four traces."""

LARGEST_MAP = 4096
"""Largest number of tokens of which the dense attention map is drawn."""


def shown_images(count: int) -> list[int]:
    """Return the numbers of the images in the pictures, spread evenly over the data."""
    shown = min(SHOWN, count)
    return [number * count // shown for number in range(shown)]


def trace_size(tokens: int, images: int) -> tuple[int, int]:
    """Return how many images and steps a trace may have with so many tokens.

    Below a few hundred tokens that is every image and 60 steps; images of 218 x 178 leave 1 image and 5 steps.
    """
    affordable = TRACE_ENTRIES / tokens**2
    images = max(1, min(images, int(affordable / (TRACE_STEPS + 1))))
    return images, max(1, min(TRACE_STEPS, int(affordable / images) - 1))


def make_figure_data(
    model: Bijection, model_config: ModelConfig, *, images: DequantisedImages, report: InversionReport
) -> Arrays:
    """Return all arrays of a trained model but the training losses.

    Args:
        model: The trained model, in eval mode.
        model_config: What it was built from.
        images: The test images; ``report.kept`` are those of ``shown_images``.
        report: What the inversion of all test images measured.

    Returns:
        Array name -> values; parts that do not apply (attention of ``pointwise``, curves of ``unconstrained``, maps
        of large images) are missing.
    """
    numbers = torch.tensor(shown_images(len(images)))
    arrays = _pictures(images, numbers, report, clip=not model.certified)
    height, width = (side // model_config.squeeze for side in images.size)
    count, steps = trace_size(height * width, len(numbers))
    traced = squeeze(images(numbers[:count]).double(), model_config.squeeze)
    trace = picard_trace(model_config.block_of(copy.deepcopy(model).double()), traced, steps=steps)
    arrays |= _residuals(trace)
    if not isinstance(model_config.recipe, Unconstrained):
        arrays |= _curves(model, model_config, traced, trace)
    if model_config.kind != "pointwise" and height * width <= LARGEST_MAP:
        arrays |= _maps(model_config.block_of(model), images, numbers[:1], model_config.squeeze)
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as one compressed npz file, atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write(path, buffer.getvalue())


def _pictures(images: DequantisedImages, numbers: Tensor, report: InversionReport, *, clip: bool) -> Arrays:
    original = clean_pixels(to_pixels(images(numbers).double()), clip=clip).values
    difference = (report.kept - original).abs().amax(dim=1)
    visible = clean_pixels(report.kept, clip=True).values.floor().to(torch.uint8)
    return {
        "originals": images.pixels(numbers).permute(0, 2, 3, 1).numpy(),
        "reconstructions": visible.permute(0, 2, 3, 1).numpy(),
        "errors": difference.float().numpy(),
        "image_mse": report.mse[numbers].numpy(),
        "image_index": numbers.numpy(),
        "all_mse": report.mse.numpy(),
    }


def _residuals(trace: PicardTrace) -> Arrays:
    residual = trace.residual.numpy()
    return {
        "residual_steps": np.arange(len(residual)),
        "residual_median": np.median(residual, axis=1),
        "residual_max": residual.max(axis=1),
    }


def _curves(model: Bijection, model_config: ModelConfig, inputs: Tensor, own: PicardTrace) -> Arrays:
    """Rebuild the block with other constants and the same weights, and follow Algorithm 1 as long as ``own`` did."""
    steps = len(own.error) - 1
    errors = []
    for constant in CURVE_CONSTANTS:
        trace = own
        if constant != model_config.lipschitz:
            other_config = replace(model_config, lipschitz=constant)
            with torch.random.fork_rng(devices=[]):
                other = other_config.build()
            other.load_state_dict(model.state_dict())
            trace = picard_trace(other_config.block_of(other.double().eval()), inputs, steps=steps)
        errors.append(trace.error.amax(dim=1).numpy())
    return {
        "curve_c": np.asarray(CURVE_CONSTANTS),
        "curve_steps": np.arange(steps + 1),
        "curve_error": np.stack(errors),
    }


def _maps(block: Bijection, images: DequantisedImages, number: Tensor, factor: int) -> Arrays:
    inputs = squeeze(images(number), factor)
    queries = query_points(*inputs.shape[-2:])
    return {
        "attention_image": images.pixels(number)[0].permute(1, 2, 0).numpy(),
        "attention_query": np.asarray(queries),
        "attention_maps": query_maps(block, inputs, queries=queries).float().numpy(),
    }
