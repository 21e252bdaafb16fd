"""What every training that can be stopped and continued keeps beside its weights: its losses, and a log of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from invattn._errors import DataError, InvAttnError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Picture = Tensor | NDArray[np.uint8]
"""Red, green and blue with shape (3, H, W): 8 bits, or floating point in 0..1."""


def _processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def first_text(text: str) -> str:
    """Return the text of the first process that has one; every process must call it."""
    texts = [text] * _processes()
    if len(texts) > 1:
        distributed.all_gather_object(texts, text)
    return next((found for found in texts if found), "")


_PARTS = ("state_dict", "optimizer_states", "loops", "pytorch-lightning_version")
"""What Lightning stores and needs to continue."""


class NonFiniteLoss(InvAttnError):
    """The training loss, or its gradient, became NaN or infinite; the weights are those before that step.

    Attributes:
        step: The step at which it happened, counted from 0.
        part: Where it began, such as "block 3 (embedded_gaussian attention)"; empty where that was not looked for.
    """

    def __init__(self, step: int, *, part: str = "") -> None:
        where = f", first in {part}" if part else ""
        super().__init__(f"the training loss is not finite at step {step}{where}. Try a smaller learning rate.")
        self.step = step
        self.part = part


class ResumableModule(LightningModule):
    """A training module whose checkpoints hold the loss of every step and whose run they belong to.

    Args:
        run_key: Identifies the run; a checkpoint with another key is not resumed.

    Attributes:
        step_losses: Mean over all processes of the loss of every step.
        learning_rate: Of the last step.
    """

    def __init__(self, *, run_key: str = "") -> None:
        super().__init__()
        self.step_losses: list[float] = []
        self.learning_rate = 0.0
        self._run_key = run_key
        self._earlier_seconds = self._others_seconds = 0.0
        self._started = time.process_time()

    @property
    def note(self) -> str:
        """What the progress shows beside the bar."""
        return f"loss {self.step_losses[-1]:.4f}"

    @property
    def scalars(self) -> dict[str, float]:
        """What a log shows of the last step."""
        return {"loss": self.step_losses[-1], "learning_rate": self.learning_rate}

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this training up to now, over all its processes and resumptions, in seconds."""
        return self._earlier_seconds + self._others_seconds + self._own_seconds

    def keep_loss(self, loss: Tensor, *, step: int) -> None:
        """Take note of the loss of a step, the mean over all processes.

        Raises:
            NonFiniteLoss: If it is NaN or infinite, in every process; the weights are then left as they are.
        """
        assert step == len(self.step_losses), "the loader and the module must resume at the same step"
        own = self._own_seconds
        sums = torch.tensor([float(loss.detach()), own, 1.0], dtype=torch.float64, device=loss.device)
        if _processes() > 1:
            distributed.all_reduce(sums)
        total, seconds, count = sums.tolist()
        value, self._others_seconds = total / count, seconds - own
        if not math.isfinite(value):
            raise NonFiniteLoss(step)
        self.step_losses.append(value)

    def check_gradient(self, network: nn.Module) -> None:
        """Raise NonFiniteLoss, with the first weight where it is, if a gradient is not finite before a step."""
        for name, weight in network.named_parameters():
            if weight.grad is not None and not bool(weight.grad.isfinite().all()):
                raise NonFiniteLoss(len(self.step_losses) - 1, part=f"the gradient of {name}")

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Make a step, and take note of its learning rate."""
        self.learning_rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        super().optimizer_step(*arguments, **options)

    @property
    def _own_seconds(self) -> float:
        return time.process_time() - self._started

    def on_train_start(self) -> None:
        """Start the clock."""
        self._started = time.process_time()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the losses with the weights, so that a resumed run reports all of them."""
        checkpoint["run_key"] = self._run_key
        checkpoint["step_losses"] = list(self.step_losses)
        checkpoint["cpu_seconds"] = self.cpu_seconds

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise DataError unless a checkpoint is whole, and of this run and model."""
        losses = checkpoint.get("step_losses")
        whole = isinstance(losses, list) and len(losses) == checkpoint.get("global_step")
        if not (whole and all(checkpoint.get(name) for name in _PARTS)):
            raise DataError("the checkpoint to resume is damaged or not one of ours: run without --resume.")
        if checkpoint.get("run_key") != self._run_key:
            raise DataError(
                "the training to resume was started with other options, data or code: run without --resume to train "
                "anew, or choose another output folder."
            )
        own, stored = self.state_dict(), checkpoint["state_dict"]
        other = [name for name in own.keys() | stored.keys() if _shape(own.get(name)) != _shape(stored.get(name))]
        if other:
            raise DataError(
                f"the checkpoint to resume is of another architecture ({min(other)} differs): run without --resume, or "
                "choose another output folder."
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the losses of a checkpoint that was checked when it was read."""
        self.step_losses = [float(value) for value in checkpoint["step_losses"]]
        self._earlier_seconds = float(checkpoint["cpu_seconds"])


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


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

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the log."""
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
