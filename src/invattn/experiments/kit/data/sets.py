"""One door to all image data of the reconstruction experiment."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.celeba import open_celeba
from invattn.experiments.kit.data.cifar10 import open_cifar10
from invattn.experiments.kit.data.folder import open_folder
from invattn.experiments.kit.data.gather import ImageSize, gather
from invattn.experiments.kit.data.hub import HUB_SETS, open_hub
from invattn.experiments.kit.data.photos import open_photos
from invattn.experiments.kit.data.reading import Pictures
from invattn.experiments.kit.data.svhn import open_svhn


@dataclass(frozen=True)
class ImageData:
    """Training and test images of one data set at one size.

    Args:
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


SETS = ("photos", "cifar10", "svhn", "celeba")

_PUBLISHERS_LAYOUT = {"cifar10": open_cifar10, "svhn": open_svhn, "celeba": open_celeba}


def load_reconstruction_data(
    name: str, *, data_root: Path | None, train_size: int, test_size: int, image_size: ImageSize, seed: int
) -> ImageData:
    """Load training and test images of one size.

    Args:
        name: `photos`, `cifar10`, `svhn`, `celeba`, or a folder of images.
        data_root: where cifar10, svhn or celeba lie in the publishers' layout; None to download them.
        train_size: how many training images are wanted; fewer, if fewer are there, are noted.
        test_size: how many test images are wanted; fewer, if fewer are there, are noted.
        image_size: the side in pixels, an even number, or `"original"`.
        seed: decides crops of photos and the split of a folder.

    Returns:
        the images, their fingerprint and the notes.

    Raises:
        DataError: when there is no such data, or it cannot be used; one line that says what to do.
    """
    _check(train_size=train_size, test_size=test_size, image_size=image_size)
    source = open_pictures(
        name, data_root=data_root, train_size=train_size, test_size=test_size, image_size=image_size, seed=seed
    )
    images = gather(source, image_size=image_size, train_size=train_size, test_size=test_size)
    return ImageData(
        name=name,
        train=images.train,
        test=images.test,
        fingerprint=fingerprint(images.train, images.test),
        notes=(*images.notes, *_unused_root(name, data_root)),
        native_size=images.native_size,
    )


def open_pictures(
    name: str, *, data_root: Path | None, train_size: int, test_size: int, image_size: ImageSize, seed: int
) -> Pictures:
    """Open a data set by its name without decoding anything; the arguments are those of load_reconstruction_data."""
    if name == "photos":
        return open_photos(train_size=train_size, test_size=test_size, image_size=image_size, seed=seed)
    if name not in SETS:
        return open_folder(_folder(name), train_size=train_size, test_size=test_size, seed=seed)
    if data_root is None:
        return open_hub(HUB_SETS[name], train_size=train_size, test_size=test_size)
    if not data_root.is_dir():
        raise DataError(f"there is no folder {data_root} for {name}: check --data-root")
    return _PUBLISHERS_LAYOUT[name](data_root, train_size=train_size, test_size=test_size)


def _folder(name: str) -> Path:
    """Return the folder called `name`, or raise with the data set that was probably meant."""
    if name and Path(name).exists():
        return Path(name)
    nearest = difflib.get_close_matches(name.lower(), SETS, n=1)
    advice = f"did you mean {nearest[0]}?" if nearest else "check the path"
    raise DataError(f"{name!r} is neither a data set ({', '.join(SETS)}) nor a folder: {advice}")


def _check(*, train_size: int, test_size: int, image_size: ImageSize) -> None:
    for part, size in (("train", train_size), ("test", test_size)):
        if size < 1:
            raise DataError(f"{part}_size must be at least 1; got {size}")
    if image_size != "original" and (image_size < 2 or image_size % 2):
        raise DataError(f"image_size must be an even number of pixels, at least 2, or 'original'; got {image_size}")


def _unused_root(name: str, data_root: Path | None) -> tuple[str, ...]:
    unused = data_root is not None and name not in _PUBLISHERS_LAYOUT
    return (f"data_root was given and is not used by {name}",) if unused else ()
