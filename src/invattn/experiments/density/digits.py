"""The handwritten digits that scikit-learn ships: 1,797 images of 8 x 8 pixels with 17 grey levels."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.reading import brief

DIGIT_LEVELS = 17
"""Grey levels: each pixel counts the black ones among 4 x 4 of the scan, 0 to 16."""

_TEST_FROM = 1500
_SHAPE = (1, 8, 8)


def load_digits(*, train_size: int, test_size: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Take the first of images 0 to 1,499 for training and the first of images 1,500 to 1,796 for the test.

    Args:
        train_size: How many training images are wanted, at most 1,500.
        test_size: How many test images are wanted, at most 297.

    Returns:
        Training and test images, uint8 with shape (n, 1, 8, 8), values 0 to 16; and the notes.

    Raises:
        DataError: When scikit-learn is not installed or ships another file, or more images are wanted.

    References:
        Alpaydin and Kaynak: "Optical recognition of handwritten digits", UCI 1998 (its test part).
    """
    images = _read(_file())
    train, test = images[:_TEST_FROM], images[_TEST_FROM:]
    for part, asked, found in (("train", train_size, len(train)), ("test", test_size, len(test))):
        if asked > found:
            raise DataError(f"digits has {found:,} {part} images; got --{part}-size {asked}: ask for at most {found}")
    note = (
        f"scikit-learn's digits in their own order: training from images 0 to {_TEST_FROM - 1}, test from "
        f"{_TEST_FROM} to {len(images) - 1}; {DIGIT_LEVELS} grey levels, 0 to 16"
    )
    return train[:train_size], test[:test_size], (note,)


def _file() -> Path:
    """Return the file of images; scikit-learn itself, which takes a second, need not be imported."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise DataError(
            "digits needs scikit-learn, which is not installed: pip install 'invertible-attention[experiments]'"
        )
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _read(path: Path) -> Tensor:
    """Read rows of 64 pixels and a label as uint8 with shape (n, 1, 8, 8)."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({brief(error)}): install scikit-learn again") from error
    pixels = table[:, :-1]
    if pixels.shape[1:] != (64,) or len(pixels) <= _TEST_FROM or pixels.min() < 0 or pixels.max() >= DIGIT_LEVELS:
        raise DataError(f"{path} does not hold the digits: install scikit-learn again")
    return torch.from_numpy(pixels.astype(np.uint8)).view(-1, *_SHAPE)
