"""How weights are updated: optimiser, learning rate of every step, clipping, average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from invattn._errors import check_name

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


if TYPE_CHECKING:  # training needs Lightning, which takes seconds to import
    from invattn.experiments.kit.training.machines import Machines

PRECISIONS = ("fp32", "bf16")
ACCELERATORS = ("auto", "cpu", "gpu")

STRATEGIES = ("ddp",)
"""How several processes train one model: every process has the whole model and a part of each batch."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The training.

    Attributes:
        steps: Training steps.
        epochs: Passes over the training images, in place of steps; 0: ``steps`` decides.
        batch_size: Samples in a batch.
        optimizer: adam or adamax.
        lr: Largest learning rate.
        warm_up: Steps in which it rises; it falls to 0 along a cosine afterwards.
        clip: Largest norm of the gradient; longer ones are scaled.
        averaging: Decay of the average of weights that is evaluated.
        precision: fp32, or bf16 for products of matrices in bfloat16 during training.
        repeats: Trainings of each variant, with seeds ``seed``, ``seed + 1``, ...
        seed: Decides everything that is random.
        checkpoint_minutes: Time between saves of the state of an unfinished training.
        max_minutes: Time after which training stops with its state saved, for ``resume`` to continue; 0: never.
        log_every: Steps between samples of the model in the TensorBoard log; 0 writes no log.
        accelerator: What training runs on: cpu, gpu, or auto for a GPU where there is one.
        devices: Processes, each with a GPU of its own where there are some, on every machine.
        nodes: Machines.
        strategy: How processes share a batch: ddp.
        resume: Continue an interrupted training.
    """

    steps: int = 250
    epochs: int = 0
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 0.005
    warm_up: int = 20
    clip: float = 1.0
    averaging: float = 0.98
    precision: str = "fp32"
    repeats: int = 1
    seed: int = 0
    checkpoint_minutes: float = 0.5
    max_minutes: float = 0.0
    log_every: int = 100
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "ddp"
    resume: bool = False

    def check_training(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: If a name is unknown or a number is out of range.
        """
        for name in ("steps", "batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("epochs", "log_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)}.")
        if not 0 <= self.max_minutes < math.inf:
            raise ValueError(f"max_minutes must be at least 0; got {self.max_minutes}.")
        if not self.checkpoint_minutes > 0:
            raise ValueError(f"checkpoint_minutes must be positive; got {self.checkpoint_minutes}.")
        check_name(self.precision, PRECISIONS, what="precision")
        check_name(self.strategy, STRATEGIES, what="strategy")
        self.optimisation()
        self.machines()

    def optimisation(self) -> Optimisation:
        """Return how weights are updated."""
        return Optimisation(
            steps=self.steps,
            lr=self.lr,
            warm_up=self.warm_up,
            clip=self.clip,
            averaging=self.averaging,
            optimizer=self.optimizer,
        )

    def machines(self) -> Machines:
        """Return what training runs on."""
        from invattn.experiments.kit.training.machines import Machines

        return Machines(devices=self.devices, nodes=self.nodes, accelerator=self.accelerator)
