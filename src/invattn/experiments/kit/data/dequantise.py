"""Uniform dequantisation of images with whole grey levels, and its inverse scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The increment and the two multipliers of the SplitMix64 generator, as signed 64-bit integers.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_SHIFTS = (30, 27, 31)

# x + u has 8 + 16 bits and is exact in float32. With more bits 255 + u could round up to 256.
_NOISE_BITS = 16

LEVELS = 256
"""Grey levels of an 8-bit image."""

LARGEST_BITS = 53
"""Random bits of one number that float64 holds exactly."""


def counter_uniform(index: Tensor, *, seed: int, step: int, count: int, bits: int) -> Tensor:
    """Return ``count`` numbers for each sample, uniform on {0, 1, ..., 2^bits - 1} / 2^bits.

    Each is a hash of (seed, step, sample number, position) and of nothing else: neither the batch, nor the order of
    calls, nor the device changes it.

    Args:
        index: int64, shape (B,), number of each sample.
        seed: Of the stream; any integer.
        step: Of the stream; another step gives other numbers.
        count: Numbers for each sample.
        bits: 1 to 53.

    Returns:
        float64, shape (B, count), on the device of ``index``.

    References:
        Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014 (the hash is its finaliser).
    """
    key = torch.full_like(index, _signed(seed))
    for word in (torch.full_like(index, _signed(step)), index):
        key = _mix(key + _INCREMENT) ^ word
    key = _mix(key + _INCREMENT)
    position = torch.arange(1, count + 1, device=index.device)
    # The arithmetic shift copies the sign bit; the mask takes the copies away.
    drawn = (_mix(key[:, None] + position * _INCREMENT) >> (64 - bits)) & (2**bits - 1)
    uniform: Tensor = drawn.double() / 2**bits
    return uniform


def _mix(state: Tensor) -> Tensor:
    """Scramble int64 tensors, elementwise; int64 products wrap modulo 2^64."""
    for shift, multiplier in zip(_SHIFTS[:2], _MULTIPLIERS, strict=True):
        state = (state ^ _shift_right(state, shift)) * multiplier
    mixed: Tensor = state ^ _shift_right(state, _SHIFTS[-1])
    return mixed


def _shift_right(state: Tensor, shift: int) -> Tensor:
    """Shift without copying the sign bit."""
    shifted: Tensor = (state >> shift) & (2 ** (64 - shift) - 1)
    return shifted


def _signed(number: int) -> int:
    """Wrap any integer to the signed 64-bit range."""
    return (number + 2**63) % 2**64 - 2**63


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


@dataclass(frozen=True)
class DequantisedImages:
    """Draws the dequantisation noise of any subset of images, in any order, the same each time.

    Attributes:
        images: uint8, with shape (n, 3, H, W).
        seed: Decides the noise.
    """

    images: Tensor
    seed: int

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    def pixels(self, index: Tensor) -> Tensor:
        """Return the 8-bit images of an index, with shape (B, 3, H, W)."""
        return self.images[index]

    def __call__(self, index: Tensor, epoch: int = 0) -> Tensor:
        """Return the images of an index in [-0.5, 0.5), with shape (B, 3, H, W), with the noise of an epoch."""
        return dequantise(self.images[index], seed=self.seed, step=epoch, index=index)
