"""One door to image data: any data set by its name, brought to one size, and what that took."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.folder import open_celeba, open_folder
from invattn.experiments.kit.data.hub import HUB_SETS, open_hub
from invattn.experiments.kit.data.photos import open_photos
from invattn.experiments.kit.data.pixels import centre_square, crop_even, resize
from invattn.experiments.kit.data.publishers import open_cifar10, open_svhn
from invattn.experiments.kit.data.reading import ImageRequest, ImageSize, Picture, Pictures

SETS = ("photos", "cifar10", "svhn", "celeba")

_PUBLISHERS_LAYOUT = {"cifar10": open_cifar10, "svhn": open_svhn, "celeba": open_celeba}
_SMALLEST_SIDE = 2


@dataclass(frozen=True)
class ImageData:
    """Training and test images of one data set at one size.

    Attributes:
        name: the data set, or the folder it was read from.
        train: uint8, shape (n, 3, H, W), 0 to 255; digits have one channel and values 0 to 16.
        test: uint8, shape (m, 3, H, W), likewise.
        fingerprint: SHA-256 over the shapes and pixels of both parts, 64 hexadecimal digits.
        notes: what was left out, converted, cropped or split, one sentence each.
        native_size: height x width before any resize or crop, or `"various"`.
    """

    name: str
    train: Tensor
    test: Tensor
    fingerprint: str
    notes: tuple[str, ...]
    native_size: str


def fingerprint(*images: Tensor) -> str:
    """Return the SHA-256 over the shapes and pixels of uint8 tensors, in the order given."""
    digest = hashlib.sha256()
    for batch in images:
        digest.update(repr(tuple(batch.shape)).encode("ascii"))
        digest.update(batch.contiguous().numpy().data)
    return digest.hexdigest()


def load_reconstruction_data(request: ImageRequest) -> ImageData:
    """Load training and test images of one size; DataError when there is no such data, or it cannot be used."""
    unused = request.data_root is not None and request.name not in _PUBLISHERS_LAYOUT
    notes = (f"data_root was given and is not used by {request.name}",) if unused else ()
    return gather(open_pictures(request), request, further_notes=notes)


def open_pictures(request: ImageRequest) -> Pictures:
    """Open a data set by its name without decoding anything."""
    name, data_root = request.name, request.data_root
    if name == "photos":
        return open_photos(request)
    if name not in SETS:
        return open_folder(_folder(name), request)
    if data_root is None:
        return open_hub(HUB_SETS[name], request)
    if not data_root.is_dir():
        raise DataError(f"there is no folder {data_root} for {name}: check --data-root")
    return _PUBLISHERS_LAYOUT[name](data_root, request)


def _folder(name: str) -> Path:
    """Return the folder called `name`, or raise with the data set that was probably meant."""
    if name and Path(name).exists():
        return Path(name)
    nearest = difflib.get_close_matches(name.lower(), SETS, n=1)
    advice = f"did you mean {nearest[0]}?" if nearest else "check the path"
    raise DataError(f"{name!r} is neither a data set ({', '.join(SETS)}) nor a folder: {advice}")


def gather(source: Pictures, request: ImageRequest, *, further_notes: tuple[str, ...] = ()) -> ImageData:
    """Read every picture of a source and bring all to one size.

    With a number, the centre square is resized to that side. With `"original"` all pictures must have one size, of
    which an odd last row or column is dropped.

    Args:
        source: the pictures.
        request: the size, and how many were asked for.
        further_notes: are appended to the source's notes and what was cropped, resized and converted here.

    Raises:
        DataError: when a part is empty, a picture is smaller than 2x2, or sizes differ with `"original"`.
    """
    tally = _Tally(request.image_size)
    train = tally.stack(source.train, part="training")
    test = tally.stack(source.test, part="test")
    shortages = [
        f"asked for {asked} {part} images, {images.shape[0]} are there"
        for part, asked, images in (("training", request.train_size, train), ("test", request.test_size, test))
        if images.shape[0] < asked
    ]
    notes = (*source.notes, *shortages, *tally.notes(), *further_notes)
    return ImageData(request.name, train, test, fingerprint(train, test), notes, tally.native_size())


@dataclass
class _Tally:
    """Counts of sizes and conversions over all pictures seen so far."""

    image_size: ImageSize
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def stack(self, pictures: Iterable[Picture], *, part: str) -> Tensor:
        fitted = [self._fit(picture) for picture in pictures]
        if not fitted:
            raise DataError(f"there are no {part} images: ask for at least one, and check the data folder")
        return torch.stack(fitted)

    def native_size(self) -> str:
        """Return the one size of all pictures as height x width, or `"various"`."""
        return _text(next(iter(self.sizes))) if len(self.sizes) == 1 else "various"

    def notes(self) -> list[str]:
        total = sum(self.sizes.values())
        notes = [f"{count} of {total} images: {remark}" for remark, count in sorted(self.remarks.items())]
        size_note = self._crop_note() if self.image_size == "original" else self._resize_note(self.image_size)
        return [*notes, size_note] if size_note else notes

    def _fit(self, picture: Picture) -> Tensor:
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
        if self.image_size != "original":
            return resize(centre_square(picture.pixels), height=self.image_size, width=self.image_size)
        if len(self.sizes) > 1:
            raise DataError(
                f"images at their original size must all be equal: {self.first} is {self._first_size()}, "
                f"{picture.name} is {_text((height, width))}; give a number as the image size to resize them"
            )
        return crop_even(picture.pixels)

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
