"""The arrays behind the figures of a report: pictures, errors, residuals and attention maps of one model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from invattn.bijections import Bijection, Block
from invattn.experiments.kit.data.dequantise import DequantisedImages, to_pixels
from invattn.experiments.kit.inversion import InversionReport, clean_pixels, visible_pixels
from invattn.experiments.kit.output import Arrays
from invattn.functional import squeeze
from invattn.hub import ModelConfig
from invattn.norms import token_norm
from invattn.recipes import Unconstrained, attention_map


def query_points(height: int, width: int) -> list[tuple[int, int]]:
    """Return four query positions (row, column): the middles of the quarters of the token grid."""
    rows = (height // 4, (3 * height) // 4)
    columns = (width // 4, (3 * width) // 4)
    return [(row, column) for row in rows for column in columns]


@torch.no_grad()
def query_maps(block: Block, image: Tensor, *, queries: Sequence[tuple[int, int]]) -> Tensor:
    """Return what a few output positions take from every position, averaged over the heads.

    The dense map is computed for all N^2 pairs: use it for small N only.

    Args:
        block: An attention block over images, in eval mode.
        image: Its input, with shape (1, C, H, W).
        queries: Positions (row, column) on the grid of H x W tokens.

    Returns:
        Weights with shape (queries, H, W).

    Raises:
        ValueError: If the block has no attention.
    """
    height, width = image.shape[-2:]
    weights = attention_map(block, image)[0].mean(dim=0)
    rows = [row * width + column for row, column in queries]
    return weights[rows].reshape(len(rows), height, width)


class PicardTrace(NamedTuple):
    """What was measured after 0, 1, ..., N steps.

    Attributes:
        residual: ``|x_n + g(x_n) - z|``, largest over tokens of the channel norm, with shape (N + 1, B).
        error: ``max |x_n - x|`` over all entries, in the units of the input, with shape (N + 1, B).
    """

    residual: Tensor
    error: Tensor


@torch.no_grad()
def picard_trace(block: Block, images: Tensor, *, steps: int) -> PicardTrace:
    """Run ``x_{n+1} = z - g(x_n)`` from ``x_0 = z = x + g(x)``, never stopping early.

    Args:
        block: A residual block over images, in eval mode; float64 shows the whole descent.
        images: x with shape (B, C, H, W), in the dtype of the block.
        steps: N.

    Returns:
        Residual and error of every image after every step; values that are not finite stay as they are.

    References:
        Invertible Attention (arXiv 2106.09003), Algorithm 1.
    """
    branch = block.branch
    tokens = block.to_branch(images)
    target = tokens + branch(tokens)
    point = target
    residuals, errors = [], []
    for _ in range(steps + 1):
        following = target - branch(point)
        residuals.append(token_norm(point - following))
        errors.append((point - tokens).abs().flatten(1).amax(dim=1))
        point = following
    return PicardTrace(torch.stack(residuals), torch.stack(errors))


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


def _pictures(images: DequantisedImages, numbers: Tensor, report: InversionReport, *, clip: bool) -> Arrays:
    original = clean_pixels(to_pixels(images(numbers).double()), clip=clip).values
    difference = (report.kept - original).abs().amax(dim=1)
    return {
        "originals": images.pixels(numbers).permute(0, 2, 3, 1).numpy(),
        "reconstructions": visible_pixels(report.kept),
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


def _maps(block: Block, images: DequantisedImages, number: Tensor, factor: int) -> Arrays:
    inputs = squeeze(images(number), factor)
    queries = query_points(*inputs.shape[-2:])
    return {
        "attention_image": images.pixels(number)[0].permute(1, 2, 0).numpy(),
        "attention_query": np.asarray(queries),
        "attention_maps": query_maps(block, inputs, queries=queries).float().numpy(),
    }
