"""Saves a resumable state during training, and on Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from invattn.training.interruption import Interrupted, Interruption


class ResumeCheckpoint(Callback):
    """Writes one file, replaced each time: at the start, every ``interval`` seconds, on Ctrl-C and after the last step.

    Saves happen only between steps. With several processes all of them save at the same step.

    Args:
        path: The file.
        interval: Seconds between saves.
        interruption: Whether the user asked to stop; None watches nothing.
        every_steps: Also save after every so many steps; None saves by time alone.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval: float = 30.0,
        interruption: Interruption | None = None,
        every_steps: int | None = None,
    ) -> None:
        self._path = path
        self._interval = interval
        self._interruption = interruption
        self._every_steps = every_steps
        self._saved_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at once: a path that cannot be written is reported before the first step."""
        self._save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time.

        Raises:
            Interrupted: If the user asked to stop; the state is saved.
        """
        wish = self._interruption is not None and self._interruption.requested
        due = self._every_steps is not None and trainer.global_step % self._every_steps == 0
        late = time.monotonic() - self._saved_at >= self._interval
        if not (_agreed(trainer, wish or late) or due or trainer.is_last_batch):
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
