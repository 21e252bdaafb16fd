"""Convolutions that keep the size of an image, for kernels and grids of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn._names import check_name

PADDINGS = ("zero", "circular")
"""What lies beyond the edge of an image: zeros, or the image again."""


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: str = "zero") -> Tensor:
    """Return y_i = sum_ab K_ab x_{i + (a, b)} + bias, with offsets counted from the middle of the kernel.

    Args:
        x: Images with shape (B, channels in, H, W).
        weight: K with shape (channels out, channels in, height, width), both sides odd; they may exceed H and W.
        bias: Shape (channels out,), or None.
        padding: "zero" or "circular".

    Returns:
        Images with shape (B, channels out, H, W).

    Raises:
        ValueError: If a side of the kernel is even or the padding unknown.
    """
    check_name(padding, PADDINGS, what="padding")
    check_kernel(weight.shape)
    half = (weight.shape[2] // 2, weight.shape[3] // 2)
    if padding == "zero":
        return F.conv2d(x, weight, bias, padding=half)
    # torch pads circularly by at most one turn; an index counted modulo the side wraps as often as needed.
    for axis, reach in zip((2, 3), half, strict=True):
        side = x.shape[axis]
        if reach and side:
            x = x.index_select(axis, torch.arange(-reach, side + reach, device=x.device) % side)
    return F.conv2d(x, weight, bias)


def check_kernel(shape: Sequence[int]) -> None:
    """Raise ValueError unless the shape is that of a kernel with odd sides."""
    if len(shape) != 4 or shape[2] % 2 == 0 or shape[3] % 2 == 0:
        raise ValueError(
            "a kernel must have shape (channels out, channels in, height, width) with odd height and width; got "
            f"{tuple(shape)}."
        )
