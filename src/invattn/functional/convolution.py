"""Convolutions that keep the size of an image, for kernels and grids of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn._names import check_name
from invattn.functional._transforms import transforms_active

_FEW_CHANNELS = 8
"""Up to so many channels out, and more in, a product of matrices is quicker than a convolution on processors."""

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


def transposed_convolution(weight: Tensor, *, padding: str = "zero") -> Callable[[Tensor], Tensor]:
    """Return the transpose of :func:`convolve` with a kernel, for many images and without gradient.

    Args:
        weight: As there.
        padding: As there.
    """
    check_kernel(weight.shape)
    kernel = weight.detach().transpose(0, 1).flip(2, 3)
    if padding == "zero" and weight.device.type == "cpu" and kernel.shape[0] <= _FEW_CHANNELS < kernel.shape[1]:
        rows = kernel.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)  # (channels out, height, width), channels in
        return partial(_spread, rows=rows, sides=kernel.shape[2:])
    return partial(convolve, weight=arranged(kernel), padding=padding)


def _spread(x: Tensor, rows: Tensor, sides: Sequence[int]) -> Tensor:
    """Return a convolution with zero padding to few channels: what each pixel adds to its neighbours, summed up."""
    height, width = x.shape[2:]
    parts = rows.to(x.dtype) @ x.flatten(2)
    return F.fold(parts, (height, width), (sides[0], sides[1]), padding=(sides[0] // 2, sides[1] // 2))


def arranged(x: Tensor) -> Tensor:
    """Return images, or a kernel, in the layout in which convolutions are quickest: on processors the channels of a
    pixel side by side. (Between 3 and 64 channels they then take an eighth to two thirds of the time.)
    """
    if x.device.type != "cpu" or transforms_active():  # vmap knows no such layout
        return x
    return x.contiguous(memory_format=torch.channels_last)


def check_kernel(shape: Sequence[int]) -> None:
    """Raise ValueError unless the shape is that of a kernel with odd sides."""
    if len(shape) != 4 or shape[2] % 2 == 0 or shape[3] % 2 == 0:
        raise ValueError(
            "a kernel must have shape (channels out, channels in, height, width) with odd height and width; got "
            f"{tuple(shape)}."
        )
