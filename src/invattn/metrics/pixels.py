"""Pixels that may be shown and compared: what is done to values that no image can hold."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class CleanPixels(NamedTuple):
    """Cleaned pixels, and how many of each image were not numbers.

    Attributes:
        values: Pixels on the 0-255 scale, with shape (B, C, H, W).
        non_finite: Count of NaN or infinite values of each image before cleaning, with shape (B,), int64.
    """

    values: Tensor
    non_finite: Tensor


def clean_pixels(pixels: Tensor, *, clip: bool) -> CleanPixels:
    """Count non-finite pixels and, for uncertified models, set them to 0 and clip the rest to [0, 255].

    A model without a certificate may return values far outside of every image, or none at all. Clipping is lenient to
    such a model: it bounds the error of a pixel by 255. A certified model is compared as it is (``clip=False``), so
    that a failure cannot hide.

    Args:
        pixels: Values on the 0-255 scale, with shape (B, C, H, W).
        clip: Whether to replace and clip; the count is the same either way.

    Returns:
        The pixels and the count of non-finite values per image.
    """
    finite = torch.isfinite(pixels)
    non_finite = (~finite).flatten(1).sum(dim=1)
    if not clip:
        return CleanPixels(pixels, non_finite)
    return CleanPixels(torch.where(finite, pixels, pixels.new_zeros(())).clamp(0.0, 255.0), non_finite)
