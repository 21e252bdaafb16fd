"""What a query may see, and learned logits that depend on positions alone.

Both are the same in the forward map and in its inverse, and neither changes the certificate
(docs/theory.md, "What does not matter").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from invattn.functional.dense import with_triangle


class Visibility(nn.Module):
    """A fixed boolean mask, or the causal one at any length, or none.

    Args:
        mask: Boolean with shape (N, N); True where query i may see key j. Stored with the weights.
        causal: Token i sees tokens 0 ... i.
    """

    mask: Tensor | None

    def __init__(self, *, mask: Tensor | None = None, causal: bool = False) -> None:
        super().__init__()
        if mask is not None and (mask.dtype != torch.bool or mask.dim() != 2 or mask.shape[0] != mask.shape[1]):
            raise ValueError(f"a mask must be boolean with shape (N, N); got {mask.dtype}, {tuple(mask.shape)}.")
        self.causal = causal
        self.register_buffer("mask", None if mask is None else mask.clone())

    def forward(self, tokens: int, device: torch.device) -> Tensor | None:
        """Return the mask for this many tokens, or None where every token sees all."""
        mask = self.fixed(tokens)
        if not self.causal:
            return mask
        order = torch.arange(tokens, device=device)[:, None]
        return with_triangle(mask, order, order)

    def fixed(self, tokens: int) -> Tensor | None:
        """Return the fixed mask alone, whether causal or not.

        Raises:
            ValueError: If it is for another number of tokens.
        """
        mask = self.mask
        if mask is not None and mask.shape[0] != tokens:
            raise ValueError(f"the mask is for {mask.shape[0]} tokens; got {tokens}.")
        return mask

    def __call__(self, tokens: int, device: torch.device) -> Tensor | None:
        result: Tensor | None = super().__call__(tokens, device)
        return result


class RelativePositionLogits(nn.Module):
    """Learned logits b_h(position_i - position_j) on a grid of tokens.

    Args:
        grid: The grid's sides: (N,) for a sequence, (H, W) for an image in row-major order.
        num_heads: H, one table a head.
        self_logit: Initial logit of i = j; a large one lets a block start as a pointwise map.
    """

    index: Tensor

    def __init__(self, *, grid: Sequence[int], num_heads: int, self_logit: float = 0.0) -> None:
        super().__init__()
        if not grid or any(side < 1 for side in grid):
            raise ValueError(f"a grid needs positive sides; got {tuple(grid)}.")
        self.grid = tuple(grid)
        sizes = [2 * side - 1 for side in grid]
        positions = torch.tensor(list(product(*(range(side) for side in grid))))
        offset = positions[:, None] - positions[None] + torch.tensor([side - 1 for side in grid])
        index = torch.zeros(offset.shape[:2], dtype=torch.long)
        for axis, size in enumerate(sizes):
            index = index * size + offset[..., axis]
        self.register_buffer("index", index, persistent=False)
        self.table = nn.Parameter(torch.zeros(num_heads, math.prod(sizes)))
        with torch.no_grad():
            self.table[:, index[0, 0]] = self_logit

    def forward(self, tokens: int) -> Tensor:
        """Return the logits with shape (heads, N, N).

        Raises:
            ValueError: If the number of tokens is not that of the grid.
        """
        if tokens != self.index.shape[0]:
            raise ValueError(f"the position logits are for a grid of {self.grid}; got {tokens} tokens.")
        return self.table[:, self.index]

    def __call__(self, tokens: int) -> Tensor:
        result: Tensor = super().__call__(tokens)
        return result


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Turn (B, N, H d) into (B, H, N, d); head h owns channels h d ... (h + 1) d - 1."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """Turn (B, H, N, d) into (B, N, H d)."""
    return x.transpose(-3, -2).flatten(-2)
