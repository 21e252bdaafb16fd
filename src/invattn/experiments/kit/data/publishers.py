"""CIFAR-10 from the publishers' Python batches and SVHN's cropped digits from their MATLAB files."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.experiments.kit.data.reading import ImageRequest, Pictures, brief, held_out, optional_module, pictures_of

_BATCH_FOLDER = "cifar-10-batches-py"
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_IMAGE_SHAPE = (3, 32, 32)
_IMAGE_BYTES = 3072

_TRAIN_FILE, _TEST_FILE = "train_32x32.mat", "test_32x32.mat"


def open_cifar10(data_root: Path, request: ImageRequest) -> Pictures:
    """Take the first images of `data_batch_1`, 2, ... for training and the first of `test_batch` for the test.

    Batches with fewer than 10,000 images are valid. Without `test_batch` the last quarter of the training images found
    is held out.

    Args:
        data_root: the folder `cifar-10-batches-py`, or one that holds it, or holds `cifar10/cifar-10-batches-py`.
        request: how many images are wanted.

    Raises:
        DataError: when the files are missing or damaged.

    References:
        A. Krizhevsky: "Learning multiple layers of features from tiny images", 2009.
    """
    folder = _find_batches(data_root)
    batches = [folder / name for name in _BATCHES if (folder / name).is_file()]
    parts = f"{folder.name} training", f"{folder.name} test"
    test_file = folder / "test_batch"
    if not test_file.is_file():
        return held_out(_read_batches(batches, at_most=None), request, name=folder.name, parts=parts)
    train, test = _read_batches(batches, at_most=request.train_size), read_batch(test_file)[: request.test_size]
    return Pictures(pictures_of(train, name=parts[0]), pictures_of(test, name=parts[1]))


def _find_batches(data_root: Path) -> Path:
    for folder in (data_root / _BATCH_FOLDER, data_root / "cifar10" / _BATCH_FOLDER, data_root):
        if any((folder / name).is_file() for name in _BATCHES):
            return folder
    raise DataError(
        f"there is no {_BATCH_FOLDER}/data_batch_1 in {data_root}: unpack cifar-10-python.tar.gz there, "
        "or leave out --data-root to download"
    )


def _read_batches(batches: list[Path], *, at_most: int | None) -> Tensor:
    """Concatenate batches, in order, and stop reading once there are `at_most` images."""
    images: list[Tensor] = []
    for path in batches:
        images.append(read_batch(path))
        if at_most is not None and sum(map(len, images)) >= at_most:
            break
    return torch.cat(images)[:at_most]


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
    folder = _find_matlab(data_root)
    train = _read_matlab(folder / _TRAIN_FILE)
    if not (folder / _TEST_FILE).is_file():
        return held_out(train, request, name=_TRAIN_FILE, parts=(_TRAIN_FILE, _TRAIN_FILE))
    test = _read_matlab(folder / _TEST_FILE)[: request.test_size]
    return Pictures(pictures_of(train[: request.train_size], name=_TRAIN_FILE), pictures_of(test, name=_TEST_FILE))


def _find_matlab(data_root: Path) -> Path:
    for folder in (data_root, data_root / "svhn"):
        if (folder / _TRAIN_FILE).is_file():
            return folder
    raise DataError(f"there is no {_TRAIN_FILE} in {data_root}: put it there, or leave out --data-root to download")


def _read_matlab(path: Path) -> Tensor:
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


def read_batch(path: Path) -> Tensor:
    """Read the images of a file such as `data_batch_1`, with any number of them: uint8, shape (n, 3, 32, 32).

    Raises:
        DataError: when the file is damaged, is no CIFAR-10 batch, or names anything that such a batch does not hold.
    """
    try:
        with path.open("rb") as file:
            content = _BatchUnpickler(file, encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path} {error}") from error
    except Exception as error:  # damaged pickles raise almost anything, from EOFError to MemoryError
        raise DataError(
            f"{path} is no whole CIFAR-10 batch ({brief(error)}): fetch cifar-10-python.tar.gz again"
        ) from error
    return _images(content, path)


def _images(content: object, path: Path) -> Tensor:
    stored = {**content} if isinstance(content, dict) else {}
    data = stored.get(b"data", stored.get("data"))
    if not isinstance(data, _StoredArray) or not isinstance(data.data, bytes):
        raise DataError(f"{path} is no CIFAR-10 batch: it holds no array called 'data'")
    count = len(data.data) // _IMAGE_BYTES
    if data.type_code != "u1" or data.fortran_order or data.shape != (count, _IMAGE_BYTES) or not count:
        raise DataError(f"{path} is no CIFAR-10 batch: 'data' is not a uint8 array with shape (n, 3072)")
    if len(data.data) != count * _IMAGE_BYTES:
        raise DataError(f"{path} is no whole CIFAR-10 batch: its pixels end within an image")
    pixels = np.frombuffer(data.data, dtype=np.uint8).copy()
    return torch.from_numpy(pixels).view(count, *_IMAGE_SHAPE)


class _StoredType:
    """Stands for `numpy.dtype`: keeps the type code, such as `u1`."""

    __slots__ = ("code",)

    def __init__(self, code: object, *_flags: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, _state: object) -> None:
        """Accept the byte order and the flags, of which a one-byte type has none."""


class _StoredArray:
    """Stands for `numpy.ndarray`: keeps what the file says of the array, as plain values."""

    __slots__ = ("data", "fortran_order", "shape", "type_code")

    def __init__(self) -> None:
        self.data: object = None
        self.fortran_order: object = False
        self.shape: object = None
        self.type_code: object = None

    def __setstate__(self, state: tuple[object, object, _StoredType, object, object]) -> None:
        _version, self.shape, stored_type, self.fortran_order, self.data = state
        self.type_code = stored_type.code


def _new_array(*_arguments: object) -> _StoredArray:
    """Stands for numpy's `_reconstruct`, whose arguments describe an empty array."""
    return _StoredArray()


def _latin1(text: str, encoding: object) -> bytes:
    """Stands for `codecs.encode`, by which Python 3 writes bytes at protocol 2."""
    if encoding not in ("latin1", b"latin1"):
        raise DataError(f"asks for the encoding {encoding!r}, which no CIFAR-10 batch uses: do not trust it")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): _StoredArray,
    ("numpy", "dtype"): _StoredType,
    ("_codecs", "encode"): _latin1,
}


class _BatchUnpickler(pickle.Unpickler):
    """Finds the stand-ins above and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        stand_in = _STAND_INS.get((module_name, global_name))
        if stand_in is None:
            raise DataError(
                f"asks for {module_name}.{global_name}, which no CIFAR-10 batch holds: "
                "nothing was run; do not trust this file, fetch cifar-10-python.tar.gz again"
            )
        return stand_in

    def persistent_load(self, pid: object, /) -> NoReturn:
        raise DataError("refers to objects outside the file, which no CIFAR-10 batch does: do not trust it")
