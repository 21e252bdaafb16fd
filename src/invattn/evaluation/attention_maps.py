"""Attention maps of a few query positions, for pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invattn.bijections import Bijection
from invattn.recipes import attention_map


def query_points(height: int, width: int) -> list[tuple[int, int]]:
    """Return four query positions (row, column): the middles of the quarters of the token grid."""
    rows = (height // 4, (3 * height) // 4)
    columns = (width // 4, (3 * width) // 4)
    return [(row, column) for row in rows for column in columns]


@torch.no_grad()
def query_maps(block: Bijection, image: Tensor, *, queries: Sequence[tuple[int, int]]) -> Tensor:
    """Return what a few output positions take from every position, averaged over the heads.

    The dense map is computed for all N^2 pairs: use it for small N only.

    Args:
        block: An attention block over images, in eval mode.
        image: Its input, with shape (1, C, H, W).
        queries: Positions (row, column) on the grid of H x W tokens.

    Returns:
        Weights with shape (queries, H, W).

    Raises:
        ValueError: If the block has no attention.
    """
    height, width = image.shape[-2:]
    weights = attention_map(block, image)[0].mean(dim=0)
    rows = [row * width + column for row, column in queries]
    return weights[rows].reshape(len(rows), height, width)
