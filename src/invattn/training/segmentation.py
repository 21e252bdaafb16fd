"""Training of a network that says for each pixel whether it belongs to an object."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.training.resumable_loader import Batch
from invattn.training.resumable_module import NonFiniteLoss, ResumableModule


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
