"""Checkpoint files that are whole or absent, and that cannot run code when they are read."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from invattn._errors import DataError
from invattn.records import atomic_write

_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
)
"""What reading a file raises that is not whole or not a checkpoint."""


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, waits for the disk, then renames; reads only tensors and plain values.

    A crash at any moment leaves the previous checkpoint or the new one, never a part of one. Lightning's own plugin
    moves a file from the system's temporary folder, which is a copy and not a rename where that is another file system.

    Args:
        check: Called with the content of each checkpoint that is read; raises DataError if it is not what is wanted.
    """

    def __init__(self, *, check: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._check = check

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint in the place of the previous one of the same name.

        Args:
            checkpoint: State of the run.
            path: The file.
            storage_options: Not supported; must be None.

        Raises:
            OSError: If it cannot be written; the previous file is then unchanged.
        """
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO writes to local files; storage_options must be None.")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, buffer.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint with torch's restricted unpickler, whatever ``weights_only`` says.

        Args:
            path: The file.
            map_location: As in ``torch.load``.
            weights_only: Ignored: always true.

        Raises:
            DataError: If the file is missing, damaged, or holds anything but plain values and tensors.
        """
        try:
            # torch compares no checksum when it reads: a wrong bit would become a wrong weight.
            with zipfile.ZipFile(path) as archive:
                intact = archive.testzip() is None
            checkpoint = torch.load(path, map_location=map_location, weights_only=True) if intact else None
        except FileNotFoundError:
            raise DataError(f"there is no checkpoint {path}. Run without --resume.") from None
        except _DAMAGE:
            checkpoint = None
        if not isinstance(checkpoint, dict):
            raise DataError(f"the checkpoint {path} is damaged or not one of ours. Delete it and run again.")
        if self._check is not None:
            self._check(checkpoint)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint; one that is absent is no error."""
        Path(path).unlink(missing_ok=True)
