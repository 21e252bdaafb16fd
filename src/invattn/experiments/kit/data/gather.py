"""Bring the pictures of a source to one size and note what that took."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.pixels import centre_square, crop_even, resize
from invattn.experiments.kit.data.reading import Picture, Pictures

ImageSize = int | Literal["original"]

_SMALLEST_SIDE = 2


@dataclass(frozen=True)
class Gathered:
    """Pictures of one size.

    Args:
        train: uint8, shape (n, 3, H, W).
        test: uint8, shape (m, 3, H, W).
        native_size: height x width of the source's pictures, or `"various"`.
        notes: the source's notes and what was cropped, resized and converted here.
    """

    train: Tensor
    test: Tensor
    native_size: str
    notes: tuple[str, ...]


def gather(source: Pictures, *, image_size: ImageSize, train_size: int, test_size: int) -> Gathered:
    """Read every picture of a source and bring all to one size.

    With a number, the centre square is resized to that side. With `"original"` all pictures must have one size, of
    which an odd last row or column is dropped.

    Args:
        source: the pictures.
        image_size: the side in pixels, or `"original"`.
        train_size: how many training images were asked for.
        test_size: how many test images were asked for.

    Returns:
        the images and the notes.

    Raises:
        DataError: when a part is empty, a picture is smaller than 2x2, or sizes differ with `"original"`.
    """
    tally = _Tally(image_size)
    train = tally.stack(source.train, part="training")
    test = tally.stack(source.test, part="test")
    shortages = [
        f"asked for {asked} {part} images, {images.shape[0]} are there"
        for part, asked, images in (("training", train_size, train), ("test", test_size, test))
        if images.shape[0] < asked
    ]
    notes = (*source.notes, *shortages, *tally.notes())
    return Gathered(train=train, test=test, native_size=tally.native_size(), notes=notes)


@dataclass
class _Tally:
    """Counts of sizes and conversions over all pictures seen so far."""

    image_size: ImageSize
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def stack(self, pictures: Iterable[Picture], *, part: str) -> Tensor:
        """Return the pictures as one uint8 batch with shape (n, 3, H, W)."""
        fitted = [self._fit(picture) for picture in pictures]
        if not fitted:
            raise DataError(f"there are no {part} images: ask for at least one, and check the data folder")
        return torch.stack(fitted)

    def native_size(self) -> str:
        """Return the one size of all pictures as height x width, or `"various"`."""
        return _text(next(iter(self.sizes))) if len(self.sizes) == 1 else "various"

    def notes(self) -> list[str]:
        """Say what was cropped, resized and converted."""
        total = sum(self.sizes.values())
        notes = [f"{count} of {total} images: {remark}" for remark, count in sorted(self.remarks.items())]
        size_note = self._crop_note() if self.image_size == "original" else self._resize_note(self.image_size)
        return [*notes, size_note] if size_note else notes

    def _fit(self, picture: Picture) -> Tensor:
        self._count(picture)
        if self.image_size == "original":
            return crop_even(picture.pixels)
        return resize(centre_square(picture.pixels), height=self.image_size, width=self.image_size)

    def _count(self, picture: Picture) -> None:
        height, width = picture.pixels.shape[-2:]
        if min(height, width) < _SMALLEST_SIDE:
            raise DataError(
                f"{picture.name} is {_text((height, width))} pixels; the smallest image that can be squeezed is 2x2: "
                "remove it"
            )
        self.first = self.first or picture.name
        self.sizes[(height, width)] += 1
        if picture.remark:
            self.remarks[picture.remark] += 1
        if self.image_size == "original" and len(self.sizes) > 1:
            raise DataError(
                f"images at their original size must all be equal: {self.first} is {self._first_size()}, "
                f"{picture.name} is {_text((height, width))}; give a number as the image size to resize them"
            )

    def _first_size(self) -> str:
        return _text(next(iter(self.sizes)))

    def _crop_note(self) -> str:
        height, width = next(iter(self.sizes))
        even = (height - height % 2, width - width % 2)
        if even == (height, width):
            return ""
        return f"cropped from {_text((height, width))} to {_text(even)} (height x width): squeeze(2) needs even sides"

    def _resize_note(self, side: int) -> str:
        if set(self.sizes) == {(side, side)}:
            return ""
        enlarged = sum(count for size, count in self.sizes.items() if min(size) < side)
        larger = f"; {enlarged} of {sum(self.sizes.values())} images were smaller and were enlarged" if enlarged else ""
        origin = "various sizes" if len(self.sizes) > 1 else self._first_size()
        return f"resized from {origin} to {side}x{side} (centre square, antialiased bilinear){larger}"


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
