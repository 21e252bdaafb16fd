"""The output of a run: its folder, looked at before hours of work, the arrays in it, and the versions of libraries."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import invattn
from invattn._errors import DataError
from invattn._files import atomic_write

Arrays = dict[str, NDArray[Any]]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as one compressed npz file, atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write(path, buffer.getvalue())


def library_versions(*others: str) -> dict[str, str]:
    """Return library name -> version, with Python's; of ``others`` beside those that every run uses."""
    own = {"invattn": invattn.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return own | {name: version(name) for name in ("lightning", "numpy", "safetensors", *others)}


def check_output(path: Path) -> None:
    """Check that a folder exists or could be made, without making anything.

    Raises:
        DataError: If the path, or a folder above it, is a file or cannot be written to.
    """
    existing = path
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        what = "is" if existing == path else f"lies below {existing}, which is"
        raise DataError(f"the output {path} {what} not a folder. Choose another --output.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DataError(f"the output {path} cannot be written: no permission for {existing}. Choose another --output.")


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, and return it.

    Raises:
        DataError: If that is impossible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the folder {path} cannot be made: {error.strerror}. Choose another --output.") from None
    return path
