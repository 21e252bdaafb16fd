"""What is asked of a data source, and what it hands over: named pictures, each in a part of the data."""

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from torch import Tensor

from invattn._errors import DataError

_LONGEST = 160


def brief(error: BaseException) -> str:
    """Return what an exception says, or else the name of its class, as one line of at most 160 characters."""
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def optional_module(name: str, *, distribution: str) -> ModuleType:
    """Import a module, such as `"scipy.io"`, of a distribution, such as `"scipy"`; DataError when it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{distribution} is needed for this data set and is not installed: "
            "pip install 'invertible-attention[experiments]'"
        ) from error


ImageSize = int | Literal["original"]


@dataclass(frozen=True)
class ImageRequest:
    """Which images are wanted, and at which size.

    Attributes:
        name: `photos`, `cifar10`, `svhn`, `celeba`, or a folder of images.
        data_root: where cifar10, svhn or celeba lie in the publishers' layout; None to download them.
        train_size: how many training images are wanted; fewer, if fewer are there, are noted.
        test_size: how many test images are wanted; fewer, if fewer are there, are noted.
        image_size: the side in pixels, an even number, or `"original"`.
        seed: decides crops of photos and the split of a folder.

    Raises:
        DataError: when a size is impossible.
    """

    name: str
    _: KW_ONLY
    data_root: Path | None
    train_size: int
    test_size: int
    image_size: ImageSize
    seed: int

    def __post_init__(self) -> None:
        for part, size in (("train", self.train_size), ("test", self.test_size)):
            if size < 1:
                raise DataError(f"{part}_size must be at least 1; got {size}")
        if self.image_size != "original" and (self.image_size < 2 or self.image_size % 2):
            raise DataError(
                f"image_size must be an even number of pixels, at least 2, or 'original'; got {self.image_size}"
            )


@dataclass(frozen=True)
class Picture:
    """One picture of any size.

    Attributes:
        name: how error messages call it, usually its path.
        pixels: uint8, shape (3, H, W).
        remark: how it was converted to 8-bit RGB; empty when it was that already.
    """

    name: str
    pixels: Tensor
    remark: str = ""


@dataclass(frozen=True)
class Pictures:
    """The training and the test pictures of a source, decoded only when they are iterated.

    Attributes:
        train: training pictures, in their final order.
        test: test pictures, in their final order.
        notes: what a reader of the results must know about this choice, one sentence each.
    """

    train: Iterable[Picture]
    test: Iterable[Picture]
    notes: tuple[str, ...] = ()


def pictures_of(images: Tensor, *, name: str) -> Iterator[Picture]:
    """Yield the images of a uint8 batch with shape (n, 3, H, W) as pictures called `name`."""
    for index, pixels in enumerate(images):
        yield Picture(f"image {index} of {name}", pixels)


def disjoint_counts(total: int, *, train_size: int, test_size: int, name: str) -> tuple[int, int]:
    """Share `total` images between training and test so that none serves twice.

    Where there are fewer than `train_size + test_size`, both parts shrink in proportion and keep at least one image.

    Args:
        total: how many images there are.
        train_size: how many training images were asked for, at least 1.
        test_size: how many test images were asked for, at least 1.
        name: the place they come from, for messages.

    Raises:
        DataError: when there are fewer than two images.
    """
    if total < 2:
        raise DataError(f"{name} holds {total} image(s); one for training and one for the test are needed: add images")
    if train_size + test_size <= total:
        return train_size, test_size
    test_count = min(max(1, round(total * test_size / (train_size + test_size))), total - 1)
    return total - test_count, test_count


def held_out(images: Tensor, request: ImageRequest, *, name: str, parts: tuple[str, str]) -> Pictures:
    """Split a training file that came without its test file: the last quarter is the test part, as a note says.

    Args:
        images: all that the file holds, uint8, shape (n, 3, H, W).
        request: how many are wanted.
        name: the file, for messages.
        parts: how messages call the training and the test images.

    Raises:
        DataError: when there are fewer than two images.
    """
    total = len(images)
    if total < 2:
        raise DataError(f"{name} holds {total} image(s) and there is no test file: add the test file")
    count = total - max(1, total // 4)
    note = (
        f"there is no test file, so the last quarter of {name} is held out for the test "
        f"(images {count} to {total - 1} of {total})"
    )
    return Pictures(
        pictures_of(images[: min(request.train_size, count)], name=parts[0]),
        pictures_of(images[count:][: request.test_size], name=parts[1]),
        (note,),
    )
