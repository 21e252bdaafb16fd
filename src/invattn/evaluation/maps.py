"""Maps of a network over a set of images, measured against their masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.data.masked_images import MaskedImages
from invattn.data.pixels import resize

if TYPE_CHECKING:
    from invattn.metrics.camouflage import GreyImage, MapScores


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
    from invattn.metrics.camouflage import MapMeasures

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
