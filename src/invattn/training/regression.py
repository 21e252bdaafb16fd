"""Regression on one fixed random target: how the paper's reconstruction experiment gets arbitrary weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._errors import DataError, InvAttnError
from invattn.training.resumable_loader import Batch

AfterStep = Callable[[torch.optim.Optimizer, nn.Module], object]
"""Registers a constraint on the weights that runs after each update of an optimizer."""


class NonFiniteLoss(InvAttnError):
    """The training loss became NaN or infinite; the weights are those before that step.

    Attributes:
        step: The step at which it happened, counted from 0.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"the training loss is not finite at step {step}. Try a smaller learning rate.")
        self.step = step


class FixedTargetRegression(LightningModule):
    """Minimises ``mean (f(x_b) - y_b)^2`` where y is the same random batch in every step.

    No image has a right answer here; training only moves the weights to where a careless constraint breaks. That is
    what the paper's released code does.

    Args:
        model: The map f.
        target: y, with the shape of f(x) for a full batch.
        lr: Learning rate of Adam.
        run_key: Identifies the run; a checkpoint with another key is not resumed.
        after_step: Called once with the optimizer and the model, to register a constraint that runs after each update.

    References:
        Invertible Attention (arXiv 2106.09003), Section F.1.
    """

    target: Tensor

    def __init__(
        self, model: nn.Module, target: Tensor, *, lr: float, run_key: str = "", after_step: AfterStep | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("target", target, persistent=False)
        self.step_losses: list[float] = []
        self._lr = lr
        self._run_key = run_key
        self._after_step = after_step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            NonFiniteLoss: If it is NaN or infinite; the weights are then left as they are.
        """
        assert batch.step == len(self.step_losses), "the loader and the module must resume at the same step"
        output: Tensor = self.model(batch.images)
        if output.shape != self.target.shape:
            raise ValueError(
                f"the target must have the shape of the output, {tuple(output.shape)}; got {tuple(self.target.shape)}."
            )
        loss = F.mse_loss(output, self.target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteLoss(batch.step)
        self.step_losses.append(value)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over the parameters of the model."""
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self._lr)
        if self._after_step is not None:
            self._after_step(optimizer, self.model)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the losses with the weights, so that a resumed run reports all of them."""
        checkpoint["run_key"] = self._run_key
        checkpoint["step_losses"] = list(self.step_losses)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the losses.

        Raises:
            DataError: If the checkpoint is of another run.
        """
        if checkpoint.get("run_key") != self._run_key:
            raise DataError(
                "the training to resume was started with other options, data or code: run without --resume to train "
                "anew, or choose another output folder."
            )
        self.step_losses = [float(value) for value in checkpoint["step_losses"]]
