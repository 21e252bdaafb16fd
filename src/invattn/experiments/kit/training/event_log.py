"""What TensorBoard shows of a training while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from invattn.experiments.kit.training.module import ResumableModule

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Picture = Tensor | NDArray[np.uint8]
"""Red, green and blue with shape (3, H, W): 8 bits, or floating point in 0..1."""


class EventLog(Callback):
    """Logs the scalars of every step, and a picture every so many steps.

    A resumed training appends to the folder, and what an interrupted one logged after its last save is dropped, which
    Lightning's own logger does not do. The training itself does not notice: its weights are the same with and without
    a log.

    Args:
        folder: Where TensorBoard reads; it is made if it is missing.
        draw: Returns the picture, or None where there is none now; it must draw from a generator of its own.
        name: What the picture is called.
        every: Steps between pictures, at least 1.
    """

    def __init__(self, folder: Path, *, draw: Callable[[], Picture | None], name: str, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1; got {every}.")
        self._folder, self._draw, self._name, self._every = folder, draw, name, every
        self._writer: SummaryWriter | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the log where the training starts or continues."""
        from torch.utils.tensorboard import SummaryWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(str(self._folder), purge_step=trainer.global_step + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the step."""
        assert isinstance(pl_module, ResumableModule)
        assert self._writer is not None, "opened when the training started"
        for name, value in pl_module.scalars.items():
            self._writer.add_scalar(name, value, trainer.global_step)
        picture = self._draw() if trainer.global_step % self._every == 0 else None
        if picture is not None:
            self._writer.add_image(self._name, picture, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the log."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the log."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
