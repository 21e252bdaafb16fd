"""CIFAR-10 from the publishers' Python batches."""

from pathlib import Path

import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.data.batch_pickle import read_batch
from invattn.data.pictures import Pictures, hold_out_last_quarter, pictures_of

_FOLDER = "cifar-10-batches-py"
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def open_cifar10(data_root: Path, *, train_size: int, test_size: int) -> Pictures:
    """Take the first images of `data_batch_1`, 2, ... for training and the first of `test_batch` for the test.

    Batches with fewer than 10,000 images are valid. Without `test_batch` the last quarter of the training images found
    is held out.

    Args:
        data_root: the folder `cifar-10-batches-py`, or one that holds it, or holds `cifar10/cifar-10-batches-py`.
        train_size: how many training images are wanted.
        test_size: how many test images are wanted.

    Returns:
        the pictures.

    Raises:
        DataError: when the files are missing or damaged.

    References:
        A. Krizhevsky: "Learning multiple layers of features from tiny images", 2009.
    """
    folder = _find(data_root)
    batches = [folder / name for name in _BATCHES if (folder / name).is_file()]
    test_file = folder / "test_batch"
    if test_file.is_file():
        train = _read(batches, at_most=train_size)
        return Pictures(
            pictures_of(train, name=f"{folder.name} training"),
            pictures_of(read_batch(test_file)[:test_size], name=f"{folder.name} test"),
        )
    images = _read(batches, at_most=None)
    train_count, note = hold_out_last_quarter(len(images), name=folder.name)
    return Pictures(
        pictures_of(images[: min(train_size, train_count)], name=f"{folder.name} training"),
        pictures_of(images[train_count:][:test_size], name=f"{folder.name} test"),
        (note,),
    )


def _find(data_root: Path) -> Path:
    for folder in (data_root / _FOLDER, data_root / "cifar10" / _FOLDER, data_root):
        if any((folder / name).is_file() for name in _BATCHES):
            return folder
    raise DataError(
        f"there is no {_FOLDER}/data_batch_1 in {data_root}: unpack cifar-10-python.tar.gz there, "
        "or leave out --data-root to download"
    )


def _read(batches: list[Path], *, at_most: int | None) -> Tensor:
    """Concatenate batches, in order, and stop reading once there are `at_most` images."""
    images: list[Tensor] = []
    for path in batches:
        images.append(read_batch(path))
        if at_most is not None and sum(map(len, images)) >= at_most:
            break
    return torch.cat(images)[:at_most]
