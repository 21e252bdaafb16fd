"""Regression on one fixed random target: how the paper's reconstruction experiment gets arbitrary weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.training.resumable_loader import Batch
from invattn.training.resumable_module import ResumableModule

AfterStep = Callable[[torch.optim.Optimizer, nn.Module], object]
"""Registers a constraint on the weights that runs after each update of an optimizer."""


class FixedTargetRegression(ResumableModule):
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
        super().__init__(run_key=run_key)
        self.model = model
        self.register_buffer("target", target, persistent=False)
        self._lr = lr
        self._after_step = after_step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            NonFiniteLoss: If it is NaN or infinite; the weights are then left as they are.
        """
        output: Tensor = self.model(batch.images)
        if output.shape != self.target.shape:
            raise ValueError(
                f"the target must have the shape of the output, {tuple(output.shape)}; got {tuple(self.target.shape)}."
            )
        loss = F.mse_loss(output, self.target)
        self.keep_loss(loss, step=batch.step)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over the parameters of the model."""
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self._lr)
        if self._after_step is not None:
            self._after_step(optimizer, self.model)
        return optimizer
