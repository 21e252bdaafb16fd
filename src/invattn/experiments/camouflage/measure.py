"""What is measured of a trained network, and the arrays behind the page's figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.bijections.residual import inverted_by
from invattn.experiments.camouflage.network import CamouflageNetwork
from invattn.experiments.camouflage.pairs import MaskedImages
from invattn.experiments.camouflage.record import MapMetrics
from invattn.experiments.camouflage.scores import GreyImage, MapMeasures, MapScores
from invattn.experiments.camouflage.training import CamouflageCell
from invattn.experiments.kit.data.pixels import resize
from invattn.experiments.kit.output import Arrays
from invattn.experiments.kit.progress import Progress
from invattn.solvers import Adaptive


@torch.no_grad()
def predict_map(network: nn.Module, image: Tensor, *, side: int) -> GreyImage:
    """Return where a network sees an object, at the size of the image.

    The image is resized to a square, the logits back to its own size, and their logistic function rounded to 8 bits.

    Args:
        network: Maps images in 0..1, shape (B, 3, side, side), to logits (B, 1, side, side); in eval mode.
        image: uint8, shape (3, H, W).
        side: Of the square.

    Returns:
        uint8, shape (H, W); 255 is an object for certain.
    """
    device = next(network.parameters()).device
    square = resize(image, height=side, width=side)[None].to(device).float() / 255
    logits = F.interpolate(network(square).float(), size=image.shape[-2:], mode="bilinear", align_corners=False)
    levels: GreyImage = (255 * torch.sigmoid(logits[0, 0])).round().to(torch.uint8).cpu().numpy()
    return levels


def measure_maps(
    predict: Callable[[int], GreyImage], images: MaskedImages, *, on_image: Callable[[], object]
) -> MapScores:
    """Measure one map for every image of a set.

    Args:
        predict: Returns the map of the image with a number, of any size.
        images: The set.
        on_image: Called after each image.
    """
    measures = MapMeasures()
    for number in range(len(images)):
        _, mask = images.pair(number)
        measures.add(predict(number), mask.numpy())
        on_image()
    return measures.scores()


def mean_mask(images: MaskedImages, *, side: int) -> Tensor:
    """Return the mean of all masks of a set, resized to a square: uint8, shape (side, side)."""
    total = torch.zeros(side, side, dtype=torch.float64)
    for number in range(len(images)):
        mask = images.pair(number)[1][None].expand(3, -1, -1)
        total += resize(mask, height=side, width=side)[0]
    return (total / len(images)).round().to(torch.uint8)


MOST_STEPS = 100
"""Of the solver, for every recipe: the N of the paper's Algorithm 1."""


@dataclass(frozen=True)
class ModuleInversion:
    """What was measured; both tensors have shape (images, modules), the finest module first.

    Attributes:
        error: |x - recovered x| / |x|, Euclidean norms over a whole map; infinite where the result is not finite.
        converged: Whether the solver reached its tolerance, bool.
    """

    error: Tensor
    converged: Tensor


@torch.no_grad()
def invert_modules(
    network: CamouflageNetwork, sample: Callable[[int], Tensor], *, count: int, on_image: Callable[[], object]
) -> ModuleInversion:
    """Send what each attention module sees through it and back.

    Args:
        network: Has attention; in eval mode.
        sample: Returns one image in 0..1, shape (3, H, W), by its number.
        count: Number of images.
        on_image: Called after each image.

    Raises:
        ValueError: If the network has no attention.
    """
    blocks = network.blocks()
    if not blocks:
        raise ValueError("the network has no attention module to invert.")
    errors, converged = [], []
    device = next(network.parameters()).device
    with inverted_by(network, Adaptive(max_steps=MOST_STEPS)):
        for number in range(count):
            inputs = network.attention_inputs(sample(number)[None].to(device))
            solutions = [block.solve(block(x)) for block, x in zip(blocks, inputs, strict=True)]
            pairs = zip(inputs, solutions, strict=True)
            errors.append(torch.stack([_relative_error(x, solution.value) for x, solution in pairs]))
            converged.append(torch.stack([solution.converged[0] for solution in solutions]))
            on_image()
    return ModuleInversion(torch.stack(errors).cpu(), torch.stack(converged).cpu())


def _relative_error(x: Tensor, recovered: Tensor) -> Tensor:
    error: Tensor = (x - recovered).double().norm() / x.double().norm()
    return error.nan_to_num(nan=torch.inf, posinf=torch.inf)


SHOWN = 6
"""Images of each test set in the pictures, evenly spaced."""

SHOWN_SIDE = 176
"""Longest side of a picture on the page, in pixels."""

UNCERTIFIED_IMAGES = 16
"""Test images of each set that are inverted where nothing is proven; with a certificate it is every one."""


@dataclass(frozen=True)
class Measured:
    """Scores and figures of one network.

    Attributes:
        sets: Test set -> its scores.
        pictures: Images, masks and maps of a few test images: uint8, shape (H, W, 3) each, with the set's name.
        inverse: How well the attention modules inverted, as the record holds it; None without attention.
    """

    sets: dict[str, MapScores]
    pictures: list[tuple[str, Tensor]]
    inverse: dict[str, Any] | None

    def metrics(self) -> dict[str, MapMetrics]:
        """Return the scores as the record holds them."""
        return {name: scores.metrics for name, scores in self.sets.items()}

    def s_each(self) -> dict[str, list[float]]:
        """Return the S-measure of every test image, for paired comparisons."""
        return {name: scores.s_each.tolist() for name, scores in self.sets.items()}

    def arrays(self, losses: Sequence[float]) -> Arrays:
        """Return the arrays behind the figures.

        Args:
            losses: Training loss of every epoch.
        """
        names = list(self.sets)
        return {
            "losses": np.asarray(losses, dtype=np.float64),
            "threshold_sets": np.asarray(names),
            "threshold_f": np.stack([self.sets[name].f_curve for name in names]),
            "threshold_e": np.stack([self.sets[name].e_curve for name in names]),
            "map_sets": np.asarray([name for name, _ in self.pictures]),
            "map_pictures": torch.stack([picture for _, picture in self.pictures]).numpy(),
        }


def measure_network(cell: CamouflageCell, network: CamouflageNetwork, progress: Progress) -> Measured:
    """Measure a trained network on every test set, and whether its attention inverts there.

    Args:
        cell: Of which training.
        network: In eval mode.
        progress: Is told of every image.
    """
    side = cell.config.image_size
    sets: dict[str, MapScores] = {}
    pictures: list[tuple[str, Tensor]] = []
    for part in cell.data.test:
        progress.begin(f"measure {cell.name} on {part.name}", total=len(part))
        sets[part.name] = measure_maps(
            lambda number, part=part: predict_map(network, part.pair(number)[0], side=side),  # type: ignore[misc]
            part,
            on_image=progress.advance,
        )
        progress.end()
        pictures += [(part.name, _picture(network, part, number, side=side)) for number in shown_numbers(len(part))]
    return Measured(sets, pictures, _inverse(cell, network, progress))


def shown_numbers(count: int) -> list[int]:
    """Return the numbers of the images that are shown: evenly spaced over a set, at most :data:`SHOWN`."""
    shown = min(SHOWN, count)
    return [position * count // shown for position in range(shown)]


def _picture(network: CamouflageNetwork, part: MaskedImages, number: int, *, side: int) -> Tensor:
    """Return image, mask and map, each squeezed to a square: shape (3, S, S, 3), S = :data:`SHOWN_SIDE`."""
    image, mask = part.pair(number)
    found = torch.from_numpy(predict_map(network, image, side=side))
    grey = [values[None].expand(3, -1, -1) for values in (mask, found)]
    squares = [resize(values, height=SHOWN_SIDE, width=SHOWN_SIDE) for values in (image, *grey)]
    return torch.stack([square.permute(1, 2, 0) for square in squares])


def _inverse(cell: CamouflageCell, network: CamouflageNetwork, progress: Progress) -> dict[str, Any] | None:
    blocks = network.blocks()
    if not blocks:
        return None
    proven = all(block.certified for block in blocks)
    found: list[ModuleInversion] = []
    side = cell.config.image_size
    for part in cell.data.test:
        count = len(part) if proven else min(UNCERTIFIED_IMAGES, len(part))
        progress.begin(f"invert {cell.name} on {part.name}", total=count)
        found.append(
            invert_modules(
                network,
                lambda number, part=part: resize(part.pair(number)[0], height=side, width=side).float() / 255,  # type: ignore[misc]
                count=count,
                on_image=progress.advance,
            )
        )
        progress.end()
    error = torch.cat([report.error for report in found])
    converged = torch.cat([report.converged for report in found])
    return {
        "error_max": float(error.max()),
        "error_median": float(error.median()),
        "error_levels": error.amax(dim=0).tolist(),
        "converged": float(converged.double().mean()),
        "images": len(error),
    }
