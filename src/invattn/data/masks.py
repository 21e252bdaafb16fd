"""Masks and predicted maps: one grey channel of 8 bits, whatever the file holds."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from invattn._errors import DataError
from invattn.data.pixels import read_picture

LARGEST_LABEL = 1
"""A mask whose values reach no further holds labels, not grey levels."""


def read_grey(path: Path) -> Tensor:
    """Read an image of any mode as grey, uint8 with shape (H, W).

    Colour becomes luma, 0.299 R + 0.587 G + 0.114 B, as Pillow computes it; grey stays as it is.

    Raises:
        DataError: If it cannot be decoded; one line that names the file.
    """
    pixels = read_picture(path).pixels
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).convert("L")
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width)


def read_mask(path: Path) -> Tensor:
    """Read a mask as uint8 with shape (H, W), where 255 is the object.

    Raises:
        DataError: If it cannot be decoded, or holds the labels 0 and 1 in the place of 0 and 255.
    """
    mask = read_grey(path)
    if 0 < int(mask.max()) <= LARGEST_LABEL:
        raise DataError(
            f"{path} holds the values 0 and 1: a mask has 0 and 255, so multiply it by 255 and save it again."
        )
    return mask


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width, as shown, without decoding the pixels.

    Raises:
        DataError: If it is not an image that can be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read: remove it, or fetch it again.") from error
    return (width, height) if turned else (height, width)
