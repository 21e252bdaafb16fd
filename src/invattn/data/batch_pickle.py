"""A reader of CIFAR-10's pickled batches that cannot run what a pickle asks for.

The publishers' batches are Python 2 pickles of a dictionary with one uint8 array. A pickle may name any function and
have it called, so the standard reader must not be used on files from elsewhere. This one knows only the names that
those files hold, and gives stand-ins for them: no numpy constructor and no other code runs on what the file says.
"""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.data.messages import brief

_IMAGE_SHAPE = (3, 32, 32)
_IMAGE_BYTES = 3072


def read_batch(path: Path) -> Tensor:
    """Read the images of one batch file of CIFAR-10.

    Args:
        path: a file such as `data_batch_1`, with any number of images.

    Returns:
        uint8, shape (n, 3, 32, 32).

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
