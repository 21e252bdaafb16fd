"""SVHN's cropped digits from the publishers' MATLAB files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.reading import ImageRequest, Pictures, brief, held_out, optional_module, pictures_of

_TRAIN_FILE = "train_32x32.mat"
_TEST_FILE = "test_32x32.mat"


def open_svhn(data_root: Path, request: ImageRequest) -> Pictures:
    """Take the first images of `train_32x32.mat` for training and the first of `test_32x32.mat` for the test.

    Files with fewer images than the originals, and files without labels, are valid. Without the test file the last
    quarter of the training file is held out.

    Args:
        data_root: the folder with the files, or one that holds it as `svhn`.
        request: how many images are wanted.

    Raises:
        DataError: when the training file is missing, or a file is damaged or has no images.

    References:
        Netzer et al.: "Reading digits in natural images with unsupervised feature learning", 2011.
    """
    folder = _find(data_root)
    train = _read(folder / _TRAIN_FILE)
    if not (folder / _TEST_FILE).is_file():
        return held_out(train, request, name=_TRAIN_FILE, parts=(_TRAIN_FILE, _TRAIN_FILE))
    test = _read(folder / _TEST_FILE)[: request.test_size]
    return Pictures(pictures_of(train[: request.train_size], name=_TRAIN_FILE), pictures_of(test, name=_TEST_FILE))


def _find(data_root: Path) -> Path:
    for folder in (data_root, data_root / "svhn"):
        if (folder / _TRAIN_FILE).is_file():
            return folder
    raise DataError(f"there is no {_TRAIN_FILE} in {data_root}: put it there, or leave out --data-root to download")


def _read(path: Path) -> Tensor:
    """Read `X`, stored as (row, column, channel, image), as uint8 with shape (n, 3, 32, 32)."""
    matlab = optional_module("scipy.io", distribution="scipy")
    try:
        images = matlab.loadmat(str(path), variable_names=["X"]).get("X")
    except Exception as error:  # damaged files raise almost anything, from zlib.error to MemoryError
        raise DataError(f"{path} is no whole MATLAB 5 file ({brief(error)}): fetch it again") from error
    if images is None:
        raise DataError(f"{path} holds no variable X, where SVHN keeps its images: fetch it again")
    if images.ndim == 3:  # MATLAB drops the last axis of a single image
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise DataError(
            f"{path} holds X as {images.dtype} with shape {images.shape}; SVHN has uint8 with shape (32, 32, 3, n): "
            "use the cropped digits (format 2)"
        )
    return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1)))
