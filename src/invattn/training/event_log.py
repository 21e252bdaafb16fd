"""What TensorBoard shows of a training while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from invattn._errors import ConvergenceError
from invattn.flows import Flow
from invattn.training.likelihood import MaximumLikelihood

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Picture = NDArray[np.uint8]
"""Red, green and blue with shape (H, W, 3)."""


class EventLog(Callback):
    """Logs loss, learning rate and gradient norm of every step, and samples of the averaged flow every so many steps.

    A resumed training appends to the folder, and what an interrupted one logged after its last save is dropped. The
    training itself does not notice: its weights are the same with and without a log.

    Args:
        folder: Where TensorBoard reads; it is made if it is missing.
        draw: Returns a picture of samples of a flow; it must draw from a generator of its own.
        every: Steps between pictures, at least 1.
    """

    def __init__(self, folder: Path, *, draw: Callable[[Flow], Picture], every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1; got {every}.")
        self._folder, self._draw, self._every = folder, draw, every
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
        assert isinstance(pl_module, MaximumLikelihood)
        step, unit = trainer.global_step, pl_module.unit
        self._scalar(f"loss/{unit.name.replace('/', '_per_')}", unit.of(pl_module.step_losses[-1]), step)
        self._scalar("learning_rate", pl_module.learning_rate, step)
        self._scalar("gradient_norm", pl_module.gradient_norm, step)
        if step % self._every == 0:
            self._samples(pl_module.averaged_flow, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the log."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the log."""
        self._close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def _samples(self, flow: Flow, step: int) -> None:
        try:
            picture = self._draw(flow)
        except ConvergenceError:
            return  # an uncertified flow may have no inverse there; that is reported after training
        if self._writer is not None:
            self._writer.add_image("samples", picture, step, dataformats="HWC")

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
