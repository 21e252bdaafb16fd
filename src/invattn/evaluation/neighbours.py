"""The training images that lie nearest to samples: whether a model has learnt some by heart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BATCH = 2000


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of each sample, nearest first.

    Attributes:
        index: Numbers of the images, shape (n, k), int64.
        distance: Root mean squared difference of their entries, shape (n, k), in the units of the entries.
    """

    index: Tensor
    distance: Tensor


@torch.no_grad()
def nearest_images(samples: Tensor, images: Tensor, *, count: int = 1) -> Neighbours:
    """Find the images with the smallest Euclidean distance to each sample, pixel by pixel.

    Args:
        samples: Shape (n, ...).
        images: Shape (m, ...), the same otherwise.
        count: k, how many of each; all of them if there are fewer.

    Returns:
        The neighbours, on the device of the samples.
    """
    flat = samples.flatten(1).double()
    distances = torch.cat(
        [
            # The exact differences: the expansion |a|^2 - 2ab + |b|^2 loses the distance of a copy to rounding.
            torch.cdist(flat, part.flatten(1).to(flat), compute_mode="donot_use_mm_for_euclid_dist")
            for part in torch.split(images, _BATCH)
        ],
        dim=1,
    )
    found = distances.topk(min(count, images.shape[0]), dim=1, largest=False)
    return Neighbours(index=found.indices, distance=found.values / flat.shape[1] ** 0.5)
