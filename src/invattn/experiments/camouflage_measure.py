"""What is measured of a trained network, and the arrays behind the page's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invattn.data.masked_images import MaskedImages
from invattn.data.pixels import resize
from invattn.evaluation.maps import measure_maps, predict_map
from invattn.evaluation.module_inversion import ModuleInversion, invert_modules
from invattn.experiments.camouflage_cells import CamouflageCell
from invattn.experiments.figure_data import Arrays
from invattn.metrics.camouflage import MapScores
from invattn.models import CamouflageNetwork
from invattn.records import MapMetrics
from invattn.training import Progress

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
        return {name: map_metrics(scores) for name, scores in self.sets.items()}

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


def map_metrics(scores: MapScores, *, more: Mapping[str, float] | None = None) -> MapMetrics:
    """Return what the record keeps of scores.

    Args:
        scores: The nine measures and their curves.
        more: Further measures, if they were asked for.
    """
    kept = [entry.name for entry in fields(MapMetrics) if entry.name != "more"]
    return MapMetrics(**{name: getattr(scores, name) for name in kept}, more=more)


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
