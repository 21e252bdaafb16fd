"""Pixels of one picture: decoding to 8-bit RGB, centre square, antialiased resize, even sides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.reading import Picture, brief

_REMARKS = {"RGB": "", "1": "grey, converted to RGB", "L": "grey, converted to RGB"} | {
    mode: f"{mode}, converted to RGB without the alpha channel" for mode in ("RGBA", "LA", "PA")
}
_GREY_16_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_NO_FIXED_SCALE = frozenset({"F", "I"})


def read_picture(path: Path) -> Picture:
    """Decode an image file to 8-bit RGB, turned upright as its EXIF orientation says, and name it by its path.

    Any format that Pillow reads is valid; of several frames or pages the first is used.

    Raises:
        DataError: when the file cannot be decoded, or has no fixed scale (32-bit integers, floating point).
    """
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            image.load()
            picture = to_picture(ImageOps.exif_transpose(image), name=str(path))
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that can be read: remove it, or save it again as PNG") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be decoded as an image ({brief(error)}): remove it, or fetch it again"
        ) from error
    if frames > 1:
        remark = "; ".join(filter(None, [picture.remark, "several frames or pages, the first is used"]))
        return replace(picture, remark=remark)
    return picture


def to_picture(image: Image.Image, *, name: str) -> Picture:
    """Convert a decoded image of any mode to 8-bit RGB, called `name` in messages, and remark what was done.

    Raises:
        DataError: for floating-point and 32-bit integer pixels, whose scale is unknown, NaN among them.
    """
    if image.mode in _NO_FIXED_SCALE:
        raise DataError(_why_no_scale(image, name))
    if image.mode in _GREY_16_BIT:
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Picture(name, planes(Image.fromarray(grey).convert("RGB")), "16-bit grey, reduced to 8-bit RGB")
    if image.mode == "P":
        return Picture(name, planes(image.convert("RGBA").convert("RGB")), "palette, converted to RGB")
    return Picture(name, planes(image.convert("RGB")), _REMARKS.get(image.mode, f"{image.mode}, converted to RGB"))


def centre_square(pixels: Tensor, *, side: int | None = None) -> Tensor:
    """Cut a centred square, the largest one where no side is given, out of images with shape (..., H, W)."""
    height, width = pixels.shape[-2:]
    side = min(height, width) if side is None else side
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side]


def resize(pixels: Tensor, *, height: int, width: int) -> Tensor:
    """Resize a uint8 image with shape (3, H, W) with the antialiased bilinear filter and round back to 8 bits.

    Rounding comes before dequantisation, so that the noise added there is uniform within one grey level. An image that
    has the size already is returned itself.
    """
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    resized = torch.nn.functional.interpolate(
        pixels[None].float(), size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def crop_even(pixels: Tensor) -> Tensor:
    """Drop the last row and the last column of images with shape (..., H, W) where their number is odd."""
    height, width = pixels.shape[-2:]
    return pixels[..., : height - height % 2, : width - width % 2]


def to_image(pixels: Tensor) -> Image.Image:
    """Turn a uint8 tensor with shape (3, H, W) into an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def planes(image: Image.Image) -> Tensor:
    """Turn an RGB image into a contiguous uint8 tensor with shape (3, H, W)."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def _why_no_scale(image: Image.Image, name: str) -> str:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        return f"{name} holds pixels that are NaN or infinite: remove it, or save it again as 8-bit PNG"
    kind = "floating-point" if image.mode == "F" else "32-bit integer"
    return f"{name} holds {kind} pixels, whose scale is unknown: save it again as 8-bit PNG"
