"""Images with masks: the usual folders ``Imgs`` and ``GT``."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from invattn._errors import DataError
from invattn.data.masks import image_size, read_mask
from invattn.data.pixels import read_picture
from invattn.data.stems import Match, match_stems

IMAGES, MASKS = "Imgs", "GT"

TEST_COUNTS = {"CAMO": 250, "CHAMELEON": 76, "COD10K": 2026, "NC4K": 4121}
"""Images of the published test sets; these names select the columns of the paper's Table 4."""

TRAINING_COUNT = 4040
"""Images of the training set that the published figures are of: COD10K's, with CAMO's."""


class MaskedImages(ABC):
    """Numbered images, each with its mask.

    Attributes:
        name: Of the set.
    """

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def stem(self, number: int) -> str:
        """Return the name of an image, without an ending."""

    @abstractmethod
    def pair(self, number: int) -> tuple[Tensor, Tensor]:
        """Return an image, uint8 (3, H, W), and its mask, uint8 (H, W), where above 128 is the object.

        Raises:
            DataError: If a file cannot be decoded.
        """

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
