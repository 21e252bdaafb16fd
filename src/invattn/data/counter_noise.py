"""Random numbers that are a function of seed, step and sample number, and of nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

# The increment and the two multipliers of the SplitMix64 generator, as signed 64-bit integers.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_SHIFTS = (30, 27, 31)

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
