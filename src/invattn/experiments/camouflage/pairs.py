"""Images with masks: the usual folders ``Imgs`` and ``GT``."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.folder import list_images
from invattn.experiments.kit.data.pixels import read_picture, to_image

_NAMED = 3


class Match(NamedTuple):
    """Files of two folders with one stem."""

    stem: str
    first: Path
    second: Path


def match_stems(first: Path, second: Path, *, what: tuple[str, str]) -> list[Match]:
    """Pair every image file of a folder with the one of another folder that has its stem, sorted by stem.

    Messages call the files of each as ``what`` does, such as ``("image", "mask")``.

    Raises:
        DataError: If a folder cannot be read, two of its files have one stem, or a file has no partner.
    """
    one, other = _by_stem(first), _by_stem(second)
    for have, want, folder, names in ((one, other, second, what), (other, one, first, what[::-1])):
        alone = sorted(have.keys() - want.keys())
        if alone:
            count = f"{len(alone)} {names[0]}{'' if len(alone) == 1 else 's'}"
            more = f" and {len(alone) - _NAMED} more" if len(alone) > _NAMED else ""
            raise DataError(
                f"{folder} has no {names[1]} for {count} ({', '.join(alone[:_NAMED])}{more}): files belong together by "
                "their name without the ending; add the missing ones, or move the others out."
            )
    return [Match(stem, one[stem], other[stem]) for stem in sorted(one)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise DataError(
                f"{folder} holds two files with the stem {path.stem!r} ({found[path.stem].name} and {path.name}): "
                "remove one of them."
            )
        found[path.stem] = path
    return found


LARGEST_LABEL = 1
"""A mask whose values reach no further holds labels, not grey levels."""


def read_grey(path: Path) -> Tensor:
    """Read an image of any mode as grey, uint8 with shape (H, W); DataError if it cannot be decoded.

    Colour becomes luma, 0.299 R + 0.587 G + 0.114 B, as Pillow computes it; grey stays as it is.
    """
    return torch.from_numpy(np.array(to_image(read_picture(path).pixels).convert("L")))


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
    """Return height and width, as shown, without decoding the pixels; DataError if it is no image that can be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read: remove it, or fetch it again.") from error
    return (width, height) if turned else (height, width)


IMAGES, MASKS = "Imgs", "GT"

TEST_COUNTS = {"CAMO": 250, "CHAMELEON": 76, "COD10K": 2026, "NC4K": 4121}
"""Images of the published test sets; these names select the columns of the paper's Table 4."""

TRAINING_COUNT = 4040
"""Images of the training set that the published figures are of: COD10K's, with CAMO's."""


class MaskedImages(ABC):
    """A set of numbered images, each with its mask; it has a name."""

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def stem(self, number: int) -> str:
        """Return the name of an image, without an ending."""

    @abstractmethod
    def pair(self, number: int) -> tuple[Tensor, Tensor]:
        """Return an image, uint8 (3, H, W), and its mask, uint8 (H, W), where above 128 is the object."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of everything that the pixels depend on."""


class MaskFolder(MaskedImages):
    """The images of ``folder/Imgs`` with the masks of ``folder/GT``, matched by stem.

    Args:
        folder: Holds the two folders.
        name: Of the set.
        limit: Use only the first so many, by stem; None: all.

    Raises:
        DataError: If a folder is missing, a file has no partner, or an image and its mask differ in size.
    """

    def __init__(self, folder: Path, *, name: str, limit: int | None = None) -> None:
        for part in (IMAGES, MASKS):
            if not (folder / part).is_dir():
                raise DataError(
                    f"{folder} has no folder {part}: a set holds its images in {IMAGES} and its masks in {MASKS}."
                )
        self.name = name
        self._pairs = match_stems(folder / IMAGES, folder / MASKS, what=("image", "mask"))[:limit]
        _check_sizes(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def stem(self, number: int) -> str:
        return self._pairs[number].stem

    def pair(self, number: int) -> tuple[Tensor, Tensor]:
        _, image, mask = self._pairs[number]
        return read_picture(image).pixels, read_mask(mask)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for stem, image, mask in self._pairs:
            digest.update(stem.encode())
            for path in (image, mask):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def count_note(name: str, count: int, *, published: int) -> str | None:
    """Say that a set has another number of images than the published figures are of; None if it has as many."""
    if count == published:
        return None
    return f"{name} has {count} images, the published figures are of {published:,}"


def _check_sizes(pairs: Sequence[Match]) -> None:
    for _, image, mask in pairs:
        sizes = image_size(image), image_size(mask)
        if sizes[0] != sizes[1]:
            (height, width), (mask_height, mask_width) = sizes
            raise DataError(
                f"{mask} is {mask_height}x{mask_width} pixels and its image {image.name} is {height}x{width}: a mask "
                "has the size of its image; fetch both again, or remove them."
            )
