"""Saves a resumable state during training, and on Ctrl-C."""

from __future__ import annotations

import io
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import CheckpointIO

from invattn._errors import DataError
from invattn._files import atomic_write
from invattn.experiments.kit.training.interruption import Interrupted, Interruption

_DAMAGE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error),
    *(RuntimeError, EOFError, OSError, ValueError, LookupError),
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
        """Write a checkpoint in the place of the previous one of the same name; ``storage_options`` must be None.

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


class ResumeCheckpoint(Callback):
    """Writes one file, replaced each time: at the start, every ``interval`` seconds, on Ctrl-C and after the last step.

    Saves happen only between steps. With several processes all of them save at the same step. Lightning's own callback
    saves neither before the first step nor, at Ctrl-C, after the one at hand.

    Args:
        path: The file.
        interval: Seconds between saves.
        interruption: Whether the user asked to stop; None watches nothing.
    """

    def __init__(self, path: Path, *, interval: float = 30.0, interruption: Interruption | None = None) -> None:
        self._path, self._interval, self._interruption = path, interval, interruption
        self._saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at once: a path that cannot be written is reported before the first step."""
        self._save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; Interrupted then, if the user asked to stop."""
        wish = self._interruption is not None and self._interruption.requested
        late = time.monotonic() - self._saved_at >= self._interval
        if not (_agreed(trainer, wish or late) or trainer.is_last_batch):
            return
        self._save(trainer)
        if _agreed(trainer, wish):
            raise Interrupted(f"stopped after step {trainer.global_step}; the state is in {self._path}.")

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._path)
        self._saved_at = time.monotonic()


def _agreed(trainer: Trainer, wish: bool) -> bool:
    """Return whether any process wishes it: saving is a collective action, so all must decide alike."""
    return wish if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(wish, all=False)
