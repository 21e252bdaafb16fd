"""Mirrored training images."""

from __future__ import annotations

from torch import Tensor

from invattn.data.counter_noise import counter_uniform


def flip_half(images: Tensor, *, seed: int, step: int, index: Tensor) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Whether one is mirrored is a function of (seed, step, sample index) and of nothing else.

    Args:
        images: Shape (B, C, H, W), any dtype.
        seed: Of the stream.
        step: Which pass over the data this is.
        index: int64, shape (B,), number of each sample within its data set.
    """
    mirrored = counter_uniform(index, seed=seed, step=step, count=1, bits=1)[:, 0] > 0
    return images.flip(-1).where(mirrored.to(images.device)[:, None, None, None], images)
