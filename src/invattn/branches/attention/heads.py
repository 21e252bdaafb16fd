"""Split channels into heads, and join them again."""

from __future__ import annotations

from torch import Tensor


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Turn (B, N, H d) into (B, H, N, d); head h owns channels h d ... (h + 1) d - 1."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """Turn (B, H, N, d) into (B, N, H d)."""
    return x.transpose(-3, -2).flatten(-2)
