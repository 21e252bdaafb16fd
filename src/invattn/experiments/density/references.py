"""What simpler models and lossless codes need for the same test images."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from torch import Tensor

from invattn.experiments.kit.data.pixels import to_image
from invattn.experiments.kit.data.sets import ImageData

RIDGES = (0.0, 0.3, 1.0, 3.0)
"""Variances, in grey levels squared, that may be added in every direction to a covariance of few images."""

LARGEST_DIMENSION = 4096
"""Entries of an image above which no full covariance is fitted."""

SMALLEST_CODED = 16
"""Side in pixels below which the headers of a file format outweigh the pixels."""

_STRONGEST: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True, "quality": 100, "method": 6},
    "PNG": {"optimize": True},
}


def image_references(images: ImageData, *, levels: int, flips: bool, test: Tensor) -> dict[str, float]:
    """Return name -> bits per dimension of the test images.

    Args:
        images: The images with whole grey levels.
        levels: How many there are.
        flips: Whether the models compared with see mirrored training images; the Gaussian then does, too.
        test: The dequantised test images v + u on the scale of the grey levels, shape (n, C, H, W), float64.
    """
    found = {}
    if test[0].numel() <= LARGEST_DIMENSION:
        ridge, value = full_covariance(images.train, test, flips=flips)
        found[f"Full-covariance Gaussian (ridge {ridge:g})"] = value
    if levels == 256 and min(images.test.shape[-2:]) >= SMALLEST_CODED:
        found["WebP, lossless (files)"] = coded_bits(images.test, form="WEBP")
        found["PNG (files)"] = coded_bits(images.test, form="PNG")
    return found


def full_covariance(train: Tensor, test: Tensor, *, flips: bool) -> tuple[float, float]:
    """Fit N(mean, covariance + 1/12 + ridge) to training images and score test images.

    1/12 is the variance of the dequantisation noise. The ridge is the one of ``RIDGES`` that explains the last tenth
    of the training images best when fitted to the others.

    Args:
        train: uint8, shape (n, C, H, W).
        test: v + u, float64, shape (m, C, H, W).
        flips: Whether mirrored training images are fitted to as well.

    Returns:
        The ridge in grey levels squared, and the bits per dimension of the test images.
    """
    held_out = max(1, len(train) // 10)
    fitted, checked = train[:-held_out], train[-held_out:]
    noise = torch.rand(checked.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments = _moments(fitted, flips=flips)
    scores = {ridge: _score(moments, checked + noise, ridge) for ridge in RIDGES}
    ridge = min(scores, key=lambda choice: scores[choice])
    return ridge, _score(_moments(train, flips=flips), test, ridge)


def _moments(images: Tensor, *, flips: bool) -> tuple[Tensor, Tensor]:
    """Return mean, shape (d,), and covariance, (d, d), of v + u for whole grey levels v."""
    rows = torch.cat([images, images.flip(-1)]) if flips else images
    flat = rows.flatten(1).double()
    mean = flat.mean(dim=0)
    centred = flat - mean
    covariance = centred.mT @ centred / len(flat)
    covariance.diagonal().add_(1 / 12)
    return mean + 0.5, covariance


def _score(moments: tuple[Tensor, Tensor], images: Tensor, ridge: float) -> float:
    """Return -log2 p / d under the Gaussian with a ridge added, a mean over images."""
    mean, covariance = moments
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(mean), dtype=covariance.dtype))
    white = torch.linalg.solve_triangular(factor, (images.flatten(1) - mean).mT, upper=False)
    nats = 0.5 * white.square().sum(dim=0).mean() + factor.diagonal().log().sum()
    return float(nats / len(mean) + 0.5 * math.log(2 * math.pi)) / math.log(2)


def coded_bits(images: Tensor, *, form: str) -> float:
    """Return the bits per dimension of lossless files, their headers included.

    Args:
        images: uint8, shape (n, 3, H, W).
        form: WEBP or PNG, as Pillow names them, at their strongest compression.
    """
    total = 0
    for image in images:
        file = io.BytesIO()
        to_image(image).save(file, format=form, **_STRONGEST[form])
        total += file.tell()
    return 8 * total / images.numel()
