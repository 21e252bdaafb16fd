"""How weights are updated: optimiser, learning rate of every step, clipping, average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from invattn._errors import check_name
from invattn.experiments.kit.training.machines import Machines

OPTIMIZERS = ("adam", "adamax")


TRAINER_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Precision in which training evaluates a model -> Lightning's name of it."""

PRECISIONS = tuple(TRAINER_PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Adam or Adamax with a linear warm-up, a cosine decay, clipped gradients and averaged weights.

    The average is exponential; early steps have the decay (1 + step) / (10 + step) where that is smaller, and a decay
    of 0 averages nothing.

    Attributes:
        steps: Training steps.
        batch_size: Samples in a batch.
        optimizer: adam or adamax.
        lr: Largest learning rate.
        warm_up: Steps in which it rises; a cosine takes it to 0.
        clip: Longer gradients are scaled to this norm.
        averaging: Decay of the average of weights that is evaluated.

    Raises:
        ValueError: If a name is unknown or a number is out of range.

    References:
        Kingma and Ba 2015 (Adam, Adamax).
    """

    steps: int = 250
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 5e-3
    warm_up: int = 20
    clip: float = 1.0
    averaging: float = 0.98

    def __post_init__(self) -> None:
        check_name(self.optimizer, OPTIMIZERS, what="optimizer")
        _check_least(self, 1, "steps", "batch_size")
        _check_least(self, 0, "warm_up")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be at least 0 and below 1; got {self.averaging}.")

    def optimizers(self, module: nn.Module) -> dict[str, Any]:
        """Return the optimiser of a module and the learning rate of every step, as Lightning takes them."""
        kind = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax}[self.optimizer]
        optimizer = kind(module.parameters(), lr=self.lr)
        return stepwise(optimizer, cosine_with_warm_up(self.steps, warm_up=self.warm_up))

    @torch.no_grad()
    def average(self, mean: nn.Module, now: nn.Module, *, step: int) -> None:
        """Move the averaged weights towards those of now, after ``step`` steps.

        Lightning averages in a callback: a state that another one saves may then hold a step without its average.
        """
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


def stepwise(optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> dict[str, Any]:
    """Return an optimiser, and its learning rate times a factor of each step, as Lightning takes them."""
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Optimisation):
    """The training.

    Attributes:
        epochs: Passes over the training images, in place of steps.
        precision: fp32, or bf16 for matrix products.
        repeats: Trainings of each variant with different seeds.
        seed: Decides everything that is random.
        checkpoint_minutes: Time between saves of an unfinished training.
        max_minutes: Stop training after so long, with its state saved for --resume.
        log_every: Steps between samples in OUTPUT/tensorboard; 0 writes no log.
        accelerator: cpu, gpu, or auto.
        devices: Processes, or GPUs, of each machine that share every batch.
        nodes: Machines; start the command on each with NODE_RANK, MASTER_ADDR, MASTER_PORT.
        resume: Continue the run stopped in OUTPUT.
    """

    epochs: int = 0
    precision: str = "fp32"
    repeats: int = 1
    seed: int = 0
    checkpoint_minutes: float = 0.5
    max_minutes: float = 0.0
    log_every: int = 100
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    resume: bool = False

    def check_training(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: If a name is unknown or a number is out of range.
        """
        Optimisation.__post_init__(self)
        _check_least(self, 1, "repeats")
        _check_least(self, 0, "epochs", "log_every")
        if not 0 <= self.max_minutes < math.inf:
            raise ValueError(f"max_minutes must be at least 0; got {self.max_minutes}.")
        if not self.checkpoint_minutes > 0:
            raise ValueError(f"checkpoint_minutes must be positive; got {self.checkpoint_minutes}.")
        check_name(self.precision, PRECISIONS, what="precision")
        self.machines()

    def machines(self) -> Machines:
        """Return what training runs on."""
        return Machines(devices=self.devices, nodes=self.nodes, accelerator=self.accelerator)


def _check_least(options: object, least: int, *names: str) -> None:
    for name in names:
        if getattr(options, name) < least:
            raise ValueError(f"{name} must be at least {least}; got {getattr(options, name)}.")
