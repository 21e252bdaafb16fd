"""What TensorBoard shows of a network that learns masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from invattn.training.segmentation import MaskTraining

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MaskLog(Callback):
    """Logs the loss of every step, and image, mask and map of a few images after every epoch.

    The training itself does not notice: its weights are the same with and without a log.

    Args:
        folder: Where TensorBoard reads; it is made if it is missing.
        shown: Images and masks to show, shape (n, 4, H, W), in 0..1.
        every: Steps between pictures, at least 1.
    """

    def __init__(self, folder: Path, *, shown: Tensor, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1; got {every}.")
        self._folder, self._shown, self._every = folder, shown, every
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
        assert isinstance(pl_module, MaskTraining)
        assert self._writer is not None, "opened when the training started"
        step = trainer.global_step
        self._writer.add_scalar("loss", pl_module.step_losses[-1], step)
        self._writer.add_scalar("learning_rate", trainer.optimizers[0].param_groups[0]["lr"], step)
        if step % self._every == 0:
            self._writer.add_image("image, mask, map", preview(pl_module, self._shown), step)

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


@torch.no_grad()
def preview(training: MaskTraining, shown: Tensor) -> Tensor:
    """Return one picture, shape (3, 3 H, n W): images, masks and the maps of the network as it is now.

    The network is evaluated as after training, and left as it was.

    Args:
        training: Holds the network.
        shown: Shape (n, 4, H, W).
    """
    network, was_training = training.network, training.network.training
    network.eval()
    images = shown[:, :3].to(training.device)
    maps = torch.sigmoid(network(images).float()).cpu()
    network.train(was_training)
    rows = [shown[:, :3], *(part.expand(-1, 3, -1, -1) for part in (shown[:, 3:], maps))]
    return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
