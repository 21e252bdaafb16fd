"""The folder that a run writes to: looked at before hours of work, made when there is something to write."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

import invattn
from invattn._errors import DataError

NO_INFLUENCE = (
    "__main__",
    "_version",
    "adapters",
    "cli",
    "demo",
    "diagnosis",
    "hub",
    "published",
    "records",
    "report",
    "testing",
)
"""Parts of the package on which no measured number depends; everything else counts, new parts too."""


@cache
def source_hash() -> str:
    """Return the SHA-256 over the Python files of the installed package that measured numbers depend on."""
    return hash_sources(Path(invattn.__file__).parent)


def hash_sources(root: Path) -> str:
    """Return the SHA-256 over names and contents of the Python files below a folder, but for ``NO_INFLUENCE``."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.with_suffix("").parts[0] in NO_INFLUENCE:
            continue
        content = path.read_bytes()
        digest.update(f"{relative.as_posix()} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Return library name -> version, with Python's."""
    libraries = ("lightning", "numpy", "safetensors", "torchmetrics")
    own = {"invattn": invattn.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return own | {name: version(name) for name in libraries}


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
