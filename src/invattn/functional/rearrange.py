"""Patches of an image as channels, and back."""

from __future__ import annotations

from torch import Tensor


def squeeze(image: Tensor, factor: int) -> Tensor:
    """Move each factor x factor patch into channels, in the order (row, column, channel).

    Args:
        image: Images with shape (B, C, H, W); H and W are multiples of the factor.
        factor: The side of a patch in pixels.

    Returns:
        A tensor with shape (B, factor^2 C, H / factor, W / factor).

    Raises:
        ValueError: If the image has another rank or cannot be divided.
    """
    if image.dim() != 4:
        raise ValueError(f"images must have shape (B, C, H, W); got {tuple(image.shape)}.")
    batch, channels, height, width = image.shape
    if height % factor or width % factor:
        raise ValueError(
            f"an image of {height} x {width} cannot be squeezed by {factor}. Crop it to multiples of {factor} first."
        )
    patches = image.reshape(batch, channels, height // factor, factor, width // factor, factor)
    return patches.permute(0, 3, 5, 1, 2, 4).reshape(
        batch, factor * factor * channels, height // factor, width // factor
    )


def unsqueeze(image: Tensor, factor: int) -> Tensor:
    """Undo :func:`squeeze`.

    Args:
        image: A tensor with shape (B, factor^2 C, H, W).
        factor: The side of a patch in pixels.

    Returns:
        Images with shape (B, C, factor H, factor W).

    Raises:
        ValueError: If the image has another rank or the channels cannot be divided.
    """
    if image.dim() != 4:
        raise ValueError(f"images must have shape (B, C, H, W); got {tuple(image.shape)}.")
    batch, channels, height, width = image.shape
    if channels % (factor * factor):
        raise ValueError(f"{channels} channels cannot be unsqueezed by {factor}: they are no multiple of {factor**2}.")
    patches = image.reshape(batch, factor, factor, channels // factor**2, height, width)
    return patches.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // factor**2, factor * height, factor * width)
