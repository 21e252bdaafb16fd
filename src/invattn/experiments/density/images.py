"""Images of the density experiment: handwritten digits, faces cut as is usual, and what every experiment reads."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.dequantise import LEVELS, counter_uniform
from invattn.experiments.kit.data.folder import SUFFIXES
from invattn.experiments.kit.data.pixels import centre_square, planes, to_image
from invattn.experiments.kit.data.reading import ImageRequest, Picture, Pictures, brief
from invattn.experiments.kit.data.sets import (
    SETS,
    ImageData,
    fingerprint,
    gather,
    load_reconstruction_data,
    open_pictures,
)

DENSITY_IMAGES = ("digits", *SETS)
"""Image data sets by name; a folder of images is valid too."""

_FACE_WIDTH, _ALIGNED_WIDTH = 148, 178
_LOSSY = (".jpg", ".jpeg")

_DIGIT_LEVELS = 17  # each pixel counts the black ones among 4 x 4 of the scan, 0 to 16
_TEST_DIGITS_FROM = 1500


def load_density_images(request: ImageRequest) -> ImageData:
    """Load training and test images with whole grey levels.

    ``celeba`` is cut to the usual square around the face, 148 of 178 pixels (74 of 89 where the files have half their
    size), and reduced by a box filter; all others are prepared as in the reconstruction experiment.

    Args:
        request: Which images, by their side in pixels; ``digits``, too, has a name, and a side of 8.

    Returns:
        The images; digits have one channel and 17 levels, all others three and 256.

    Raises:
        DataError: When there is no such data, or it cannot be used; one line that says what to do.
    """
    if request.name == "digits":
        return _digits(request)
    if request.name == "celeba":
        return _faces(request)
    images = load_reconstruction_data(request)
    if request.name in SETS:
        return images
    return replace(images, notes=(*images.notes, *_lossy_note(Path(request.name))))


def grey_levels(name: str) -> int:
    """Return how many grey levels the images of a data set have."""
    return _DIGIT_LEVELS if name == "digits" else LEVELS


def flip_half(images: Tensor, *, seed: int, step: int, index: Tensor) -> Tensor:
    """Mirror each image, shape (B, C, H, W), left to right with probability 1/2.

    Whether one is mirrored is a function of seed, step (the pass over the data) and index (the number of the sample in
    its data set, int64, shape (B,)), and of nothing else.
    """
    mirrored = counter_uniform(index, seed=seed, step=step, count=1, bits=1)[:, 0] > 0
    return images.flip(-1).where(mirrored.to(images.device)[:, None, None, None], images)


def _faces(request: ImageRequest) -> ImageData:
    side = request.image_size
    assert isinstance(side, int), "flows of images have a number of pixels"
    source = open_pictures(request)
    reduced = Pictures(_reduce(source.train, side), _reduce(source.test, side), source.notes)
    found = gather(reduced, request)
    notes = (
        "training images are the first files by name, test images the last",
        f"the centre square of {_FACE_WIDTH}/{_ALIGNED_WIDTH} of the width (74 pixels of files 89 wide), reduced to "
        f"{side} x {side} by a box filter and rounded to 8 bits; the files themselves are JPEG",
    )
    return replace(found, notes=(*notes, *found.notes))


def _reduce(pictures: Iterable[Picture], side: int) -> Iterator[Picture]:
    for picture in pictures:
        yield Picture(picture.name, box_resize(face_square(picture.pixels), side=side), picture.remark)


def face_square(pixels: Tensor) -> Tensor:
    """Cut the centred square of 148/178 of the width out of an aligned face with shape (3, H, W)."""
    height, width = pixels.shape[-2:]
    return centre_square(pixels, side=min(height, round(width * _FACE_WIDTH / _ALIGNED_WIDTH)))


def box_resize(pixels: Tensor, *, side: int) -> Tensor:
    """Resize a uint8 image, shape (3, H, W), by the mean over the area of each new pixel, rounded to 8 bits."""
    return planes(to_image(pixels).resize((side, side), Image.Resampling.BOX))


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


def _digits(request: ImageRequest) -> ImageData:
    """Take the first of scikit-learn's images 0 to 1,499 for training and the first of 1,500 to 1,796 for the test.

    References:
        Alpaydin and Kaynak: "Optical recognition of handwritten digits", UCI 1998 (its test part).
    """
    if request.image_size != 8:
        raise DataError(f"digits are images of 8 x 8 pixels; got --image-size {request.image_size}: ask for 8")
    images = _read_digits(_digits_file())
    train, test = images[:_TEST_DIGITS_FROM], images[_TEST_DIGITS_FROM:]
    for part, asked, found in (("train", request.train_size, len(train)), ("test", request.test_size, len(test))):
        if asked > found:
            raise DataError(f"digits has {found:,} {part} images; got --{part}-size {asked}: ask for at most {found}")
    note = (
        f"scikit-learn's digits in their own order: training from images 0 to {_TEST_DIGITS_FROM - 1}, test from "
        f"{_TEST_DIGITS_FROM} to {len(images) - 1}; {_DIGIT_LEVELS} grey levels, 0 to 16"
    )
    train, test = train[: request.train_size], test[: request.test_size]
    return ImageData("digits", train, test, fingerprint(train, test), (note,), native_size="8x8")


def _digits_file() -> Path:
    """Return the file of images; scikit-learn itself, which takes a second, need not be imported."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise DataError(
            "digits needs scikit-learn, which is not installed: pip install 'invertible-attention[experiments]'"
        )
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _read_digits(path: Path) -> Tensor:
    """Read rows of 64 pixels and a label as uint8 with shape (n, 1, 8, 8)."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({brief(error)}): install scikit-learn again") from error
    pixels = table[:, :-1]
    if (
        pixels.shape[1:] != (64,)
        or len(pixels) <= _TEST_DIGITS_FROM
        or pixels.min() < 0
        or pixels.max() >= _DIGIT_LEVELS
    ):
        raise DataError(f"{path} does not hold the digits: install scikit-learn again")
    return torch.from_numpy(pixels.astype(np.uint8)).view(-1, 1, 8, 8)
