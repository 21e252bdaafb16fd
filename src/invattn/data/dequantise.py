"""Uniform dequantisation of images with whole grey levels, and its inverse scale."""

import torch
from torch import Tensor

from invattn.data.counter_noise import counter_uniform

# x + u has 8 + 16 bits and is exact in float32. With more bits 255 + u could round up to 256.
_NOISE_BITS = 16

LEVELS = 256
"""Grey levels of an 8-bit image."""


def dequantise(images: Tensor, *, seed: int, step: int, index: Tensor, levels: int = LEVELS) -> Tensor:
    """Spread grey levels uniformly and scale them to [-0.5, 0.5).

        t = (x + u) / levels - 0.5,   u uniform on {0, 1, ..., 65535} / 65536

    u is a hash of (seed, step, sample index, position in the image) and of nothing else: neither the batch, nor the
    order of calls, nor the device changes it. With 256 levels every step of the formula is exact in float32, so that
    `to_pixels(t).floor()` is x.

    Args:
        images: uint8, shape (B, C, H, W).
        seed: seed of the experiment.
        step: which pass over the data this is; another step gives other noise.
        index: int64, shape (B,), number of each sample within its data set.
        levels: how many grey levels there are; x is below it.

    Returns:
        float32, shape (B, C, H, W), on the device of `images`.

    Raises:
        ValueError: when `images` is not a uint8 batch or `index` does not number its samples.
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(
            f"images must be uint8 with shape (B, C, H, W); got {images.dtype} with shape {tuple(images.shape)}"
        )
    if index.dtype != torch.int64 or index.shape != images.shape[:1]:
        raise ValueError(
            f"index must be int64 with shape ({images.shape[0]},); got {index.dtype} with shape {tuple(index.shape)}"
        )
    noise = counter_uniform(
        index.to(images.device), seed=seed, step=step, count=images.shape[1:].numel(), bits=_NOISE_BITS
    )
    spread: Tensor = images.to(torch.float32) + noise.to(torch.float32).view(images.shape)
    return spread / levels - 0.5


def to_pixels(values: Tensor) -> Tensor:
    """Map dequantised values back to the 0 to 256 scale, without rounding: 256 (t + 0.5)."""
    return LEVELS * (values + 0.5)
