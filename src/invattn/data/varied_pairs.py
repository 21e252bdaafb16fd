"""Training images and their masks, turned, mirrored and recoloured at random."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from invattn.data.counter_noise import counter_uniform

_CHANNEL_ORDERS = tuple(permutations(range(3)))

_MOST_COLOUR = 1.3
"""The colour that stays is uniform up to this, cut at 1: about a quarter of the images keep all of it."""

_NUMBERS = 4
_BITS = 32


def vary_pairs(pairs: Tensor, *, seed: int, step: int, index: Tensor) -> Tensor:
    """Turn each square by quarters, mirror it, exchange its colour channels and take away part of its colour.

    What happens to one is a function of (seed, step, sample index) and of nothing else. The mask turns with its image.

    Args:
        pairs: Red, green, blue and the mask, shape (B, 4, S, S).
        seed: Of the stream.
        step: Which pass over the data this is.
        index: int64, shape (B,), number of each sample within its data set.
    """
    drawn = counter_uniform(index, seed=seed, step=step, count=_NUMBERS, bits=_BITS).tolist()
    return torch.stack([_varied(pair, *numbers) for pair, numbers in zip(pairs, drawn, strict=True)])


def _varied(pair: Tensor, turn: float, mirror: float, order: float, colour: float) -> Tensor:
    """Return one pair, shape (4, S, S), changed as four numbers in [0, 1) say."""
    pair = torch.rot90(pair, int(4 * turn), (1, 2))
    if mirror < 0.5:
        pair = pair.flip(-1)
    image = pair[list(_CHANNEL_ORDERS[int(len(_CHANNEL_ORDERS) * order)])]
    image = torch.lerp(image.mean(dim=0, keepdim=True).expand_as(image), image, min(1.0, _MOST_COLOUR * colour))
    return torch.cat([image, pair[3:]])
