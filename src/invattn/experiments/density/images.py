"""One door to all image data of the density experiment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.density.digits import DIGIT_LEVELS, load_digits
from invattn.experiments.kit.data.dequantise import LEVELS, counter_uniform
from invattn.experiments.kit.data.folder import SUFFIXES
from invattn.experiments.kit.data.gather import gather
from invattn.experiments.kit.data.reading import Picture, Pictures
from invattn.experiments.kit.data.sets import SETS, ImageData, fingerprint, load_reconstruction_data, open_pictures


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


DENSITY_IMAGES = ("digits", *SETS)
"""Image data sets by name; a folder of images is valid too."""

_FACE_WIDTH, _ALIGNED_WIDTH = 148, 178
_LOSSY = (".jpg", ".jpeg")


def load_density_images(
    name: str, *, data_root: Path | None, train_size: int, test_size: int, image_size: int, seed: int
) -> ImageData:
    """Load training and test images with whole grey levels.

    ``celeba`` is cut to the usual square around the face, 148 of 178 pixels (74 of 89 where the files have half their
    size), and reduced by a box filter; all others are prepared as in the reconstruction experiment.

    Args:
        name: ``digits``, ``photos``, ``cifar10``, ``svhn``, ``celeba``, or a folder of images.
        data_root: Where cifar10, svhn or celeba lie in the publishers' layout; None to download them.
        train_size: How many training images are wanted; fewer, if fewer are there, are noted.
        test_size: How many test images are wanted; fewer, if fewer are there, are noted.
        image_size: Side in pixels, an even number; ``digits`` has 8.
        seed: Decides crops of photos and the split of a folder.

    Returns:
        The images; digits have one channel and 17 levels, all others three and 256.

    Raises:
        DataError: When there is no such data, or it cannot be used; one line that says what to do.
    """
    if name == "digits":
        return _digits(train_size=train_size, test_size=test_size, image_size=image_size)
    if name == "celeba":
        return _faces(data_root, train_size=train_size, test_size=test_size, image_size=image_size, seed=seed)
    images = load_reconstruction_data(
        name, data_root=data_root, train_size=train_size, test_size=test_size, image_size=image_size, seed=seed
    )
    notes = (*images.notes, *(_lossy_note(Path(name)) if name not in SETS else ()))
    return ImageData(images.name, images.train, images.test, images.fingerprint, notes, images.native_size)


def grey_levels(name: str) -> int:
    """Return how many grey levels the images of a data set have."""
    return DIGIT_LEVELS if name == "digits" else LEVELS


def _digits(*, train_size: int, test_size: int, image_size: int) -> ImageData:
    if image_size != 8:
        raise DataError(f"digits are images of 8 x 8 pixels; got --image-size {image_size}: ask for 8")
    train, test, notes = load_digits(train_size=train_size, test_size=test_size)
    return ImageData("digits", train, test, fingerprint(train, test), notes, native_size="8x8")


def _faces(data_root: Path | None, *, train_size: int, test_size: int, image_size: int, seed: int) -> ImageData:
    source = open_pictures(
        "celeba", data_root=data_root, train_size=train_size, test_size=test_size, image_size=image_size, seed=seed
    )
    reduced = Pictures(_reduce(source.train, image_size), _reduce(source.test, image_size), source.notes)
    found = gather(reduced, image_size=image_size, train_size=train_size, test_size=test_size)
    notes = (
        "training images are the first files by name, test images the last",
        f"the centre square of {_FACE_WIDTH}/{_ALIGNED_WIDTH} of the width (74 pixels of files 89 wide), reduced to "
        f"{image_size} x {image_size} by a box filter and rounded to 8 bits; the files themselves are JPEG",
    )
    return ImageData(
        name="celeba",
        train=found.train,
        test=found.test,
        fingerprint=fingerprint(found.train, found.test),
        notes=(*notes, *found.notes),
        native_size=found.native_size,
    )


def _reduce(pictures: Iterable[Picture], side: int) -> Iterator[Picture]:
    for picture in pictures:
        yield Picture(picture.name, box_resize(face_square(picture.pixels), side=side), picture.remark)


def face_square(pixels: Tensor) -> Tensor:
    """Cut the centred square of 148/178 of the width out of an aligned face with shape (3, H, W)."""
    height, width = pixels.shape[-2:]
    side = min(height, round(width * _FACE_WIDTH / _ALIGNED_WIDTH))
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side]


def box_resize(pixels: Tensor, *, side: int) -> Tensor:
    """Resize an 8-bit image by the mean over the area of each new pixel, rounded to 8 bits.

    Args:
        pixels: uint8, shape (3, H, W).
        side: Rows and columns of the result.
    """
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    resized = image.resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.array(resized, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def _lossy_note(folder: Path) -> tuple[str, ...]:
    """Say how many images of a folder are JPEG files: easier to model than what they were made from."""
    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    lossy = sum(path.suffix.lower() in _LOSSY for path in files)
    if not lossy:
        return ()
    return (
        f"{lossy} of {len(files)} files are JPEG, which discards detail: bits per dimension of such images are lower "
        "than those of the originals and not comparable with published ones",
    )
