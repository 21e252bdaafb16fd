"""Uniform dequantisation of 8-bit images, and its inverse scale."""

import torch
from torch import Tensor

# The increment and the two multipliers of the SplitMix64 generator, as signed 64-bit integers.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_SHIFTS = (30, 27, 31)

# x + u has 8 + 16 bits and is exact in float32. With more bits 255 + u could round up to 256.
_NOISE_BITS = 16


def dequantise(images: Tensor, *, seed: int, step: int, index: Tensor) -> Tensor:
    """Spread 8-bit grey levels uniformly and scale them to [-0.5, 0.5).

        t = (x + u) / 256 - 0.5,   u uniform on {0, 1, ..., 65535} / 65536

    u is a hash of (seed, step, sample index, position in the image) and of nothing else: neither the batch, nor the
    order of calls, nor the device changes it. Every step of the formula is exact in float32, so that
    `to_pixels(t).floor()` is x.

    Args:
        images: uint8, shape (B, 3, H, W).
        seed: seed of the experiment.
        step: which pass over the data this is; another step gives other noise.
        index: int64, shape (B,), number of each sample within its data set.

    Returns:
        float32, shape (B, 3, H, W), on the device of `images`.

    Raises:
        ValueError: when `images` is not a uint8 batch or `index` does not number its samples.

    References:
        Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014 (the hash is its finaliser).
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(
            f"images must be uint8 with shape (B, C, H, W); got {images.dtype} with shape {tuple(images.shape)}"
        )
    if index.dtype != torch.int64 or index.shape != images.shape[:1]:
        raise ValueError(
            f"index must be int64 with shape ({images.shape[0]},); got {index.dtype} with shape {tuple(index.shape)}"
        )
    index = index.to(images.device)
    key = torch.full_like(index, _signed(seed))
    for word in (torch.full_like(index, _signed(step)), index):
        key = _mix(key + _INCREMENT) ^ word
    key = _mix(key + _INCREMENT)
    position = torch.arange(1, images.shape[1:].numel() + 1, device=images.device)
    bits = _mix(key[:, None] + position * _INCREMENT) >> (64 - _NOISE_BITS)
    noise = (bits & (2**_NOISE_BITS - 1)).to(torch.float32) / 2**_NOISE_BITS
    spread: Tensor = images.to(torch.float32) + noise.view(images.shape)
    return spread / 256 - 0.5


def to_pixels(values: Tensor) -> Tensor:
    """Map dequantised values back to the 0 to 256 scale, without rounding: 256 (t + 0.5)."""
    return 256 * (values + 0.5)


def _mix(state: Tensor) -> Tensor:
    """Scramble int64 tensors, elementwise; int64 products wrap modulo 2^64."""
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
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
