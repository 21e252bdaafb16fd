"""Training of a network that says for each pixel whether it belongs to an object."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.experiments.kit.training.loader import Batch
from invattn.experiments.kit.training.module import NonFiniteLoss, ResumableModule

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Largest memory since its making, in bytes.

    On a GPU, what torch had allocated there; else the resident set of the process, in which Python and its libraries
    (some hundred megabytes) count. Where the system cannot forget an earlier maximum, that one counts too.

    Args:
        on_gpu: Whether the work runs on a GPU.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # Linux: forget the largest resident set so far

    def bytes(self) -> int:
        """Return the largest memory up to now."""
        if self._on_gpu:
            return torch.cuda.max_memory_allocated()
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        except OSError:
            found = None
        if found:
            return 1024 * int(found[1])
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class MaskTraining(ResumableModule):
    """Minimises the binary cross-entropy between logits and masks, a mean over pixels.

    A batch has four channels in 0..1: red, green, blue, and the mask.

    Args:
        network: Maps images (B, 3, H, W) to logits (B, 1, H, W).
        lr: Learning rate of Adam at the start.
        decay: Factor of the learning rate from epoch to epoch, reached by equal factors at every step.
        steps_per_epoch: Steps in an epoch.
        run_key: Identifies the run; a checkpoint with another key is not resumed.

    References:
        Zha et al. 2021, Sec. F.3.
    """

    def __init__(
        self, network: nn.Module, *, lr: float, decay: float = 1.0, steps_per_epoch: int = 1, run_key: str = ""
    ) -> None:
        super().__init__(run_key=run_key)
        self.network = network
        self._lr, self._decay, self._steps_per_epoch = lr, decay, steps_per_epoch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            NonFiniteLoss: If it is NaN or infinite; the weights are then left as they are.
        """
        logits: Tensor = self.network(batch.images[:, :3])
        loss = F.binary_cross_entropy_with_logits(logits.float(), batch.images[:, 3:])
        self.keep_loss(loss, step=batch.step)
        return loss

    def configure_optimizers(self) -> Any:
        """Return Adam over the weights, and its learning rate of every step."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self._lr)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._decay ** (step / self._steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Clip nothing, but make no step along a gradient that is not finite.

        Raises:
            NonFiniteLoss: If it is not finite, with the first weight where it is not.
        """
        for name, weight in self.network.named_parameters():
            if weight.grad is not None and not bool(weight.grad.isfinite().all()):
                raise NonFiniteLoss(len(self.step_losses) - 1, part=f"the gradient of {name}")


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
