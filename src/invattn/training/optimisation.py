"""How weights are updated: optimiser, learning rate of every step, clipping, average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from invattn._names import check_name

OPTIMIZERS = ("adam", "adamax")


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Adam or Adamax with a linear warm-up, a cosine decay, clipped gradients and averaged weights.

    Attributes:
        steps: Number of steps of the whole training.
        lr: Largest learning rate.
        warm_up: Steps in which it rises linearly; then it falls to 0 along a cosine.
        clip: Largest norm of the gradient; longer ones are scaled.
        averaging: Decay of the exponential moving average of the weights; 0 averages nothing. Early steps use
            (1 + step) / (10 + step) where that is smaller.
        optimizer: adam or adamax.

    Raises:
        ValueError: If a name is unknown or a number is out of range.

    References:
        Kingma and Ba 2015 (Adam, Adamax).
    """

    steps: int
    lr: float = 5e-3
    warm_up: int = 20
    clip: float = 1.0
    averaging: float = 0.98
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        check_name(self.optimizer, OPTIMIZERS, what="optimizer")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}.")
        if self.warm_up < 0:
            raise ValueError(f"warm_up must be at least 0; got {self.warm_up}.")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be at least 0 and below 1; got {self.averaging}.")

    def optimizers(self, module: nn.Module) -> dict[str, Any]:
        """Return the optimiser of a module and the learning rate of every step, as Lightning takes them."""
        kind = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax}[self.optimizer]
        optimizer = kind(module.parameters(), lr=self.lr)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_with_warm_up(self.steps, warm_up=self.warm_up))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    @torch.no_grad()
    def average(self, mean: nn.Module, now: nn.Module, *, step: int) -> None:
        """Move the averaged weights towards those of now, after ``step`` steps."""
        decay = min(self.averaging, (1 + step) / (10 + step)) if self.averaging else 0.0
        for kept, new in zip(mean.parameters(), now.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def cosine_with_warm_up(steps: int, *, warm_up: int) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step: (step + 1) / warm_up at first, then a cosine down to 0.

    Args:
        steps: All steps, counted from 0.
        warm_up: Steps of the rise; fewer than ``steps``, else the rise fills all but one.
    """
    warm_up = max(0, min(warm_up, steps - 1))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))

    return factor
