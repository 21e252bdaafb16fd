"""One door to all image data of the reconstruction experiment."""

import difflib
from pathlib import Path

from invattn._errors import DataError
from invattn.data.celeba import open_celeba
from invattn.data.cifar10 import open_cifar10
from invattn.data.folder import open_folder
from invattn.data.gather import ImageSize, gather
from invattn.data.hub import HUB_SETS, open_hub
from invattn.data.image_data import ImageData, fingerprint
from invattn.data.photos import open_photos
from invattn.data.pictures import Pictures
from invattn.data.svhn import open_svhn

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
