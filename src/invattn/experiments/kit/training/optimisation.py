"""How weights are updated: optimiser, learning rate of every step, clipping, average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import nn

from invattn.experiments.kit.options import Count, Mark, Options, Positive, number_from, one_of
from invattn.experiments.kit.training.machines import MachineOptions

OPTIMIZERS = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax}

TRAINER_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""Precision in which training evaluates a model -> Lightning's name of it."""

PRECISIONS = tuple(TRAINER_PRECISIONS)

CheckpointMinutes = Annotated[Positive, "M", Mark.UNSTORED]


@dataclass(frozen=True, kw_only=True)
class Optimisation(Options):
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

    steps: Count = 250
    batch_size: Count = 64
    optimizer: Annotated[str, one_of(tuple(OPTIMIZERS), what="optimizer")] = "adam"
    lr: Annotated[Positive, "RATE"] = 5e-3
    warm_up: int = 20
    clip: Annotated[Positive, "NORM"] = 1.0
    averaging: Annotated[float, number_from(0.0, 1.0), "D"] = 0.98

    def optimizers(self, module: nn.Module) -> dict[str, Any]:
        """Return the optimiser of a module and the learning rate of every step, as Lightning takes them."""
        optimizer = OPTIMIZERS[self.optimizer](module.parameters(), lr=self.lr)
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
class SharedTraining(MachineOptions):
    """Trainings.

    Attributes:
        precision: fp32, or bf16 for matrix products in training.
        repeats: Trainings of each variant with different seeds, from SEED on.
        seed: Decides everything that is random.
        checkpoint_minutes: Time between saves of an unfinished training.
    """

    precision: Annotated[str, one_of(PRECISIONS, what="precision")] = "fp32"
    repeats: Annotated[Count, Mark.NOT_OF_A_CELL] = 1
    seed: int = 0
    checkpoint_minutes: CheckpointMinutes = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Optimisation, SharedTraining):
    """How long trainings are, and what is logged.

    Attributes:
        epochs: Passes over the training images, in place of steps.
        max_minutes: Stop training after so long, with its state saved for --resume.
        log_every: Steps between samples in OUTPUT/tensorboard; 0 writes no log.
    """

    epochs: Annotated[Count, Mark.UNSTORED] = 0
    max_minutes: Annotated[Positive, "M", Mark.UNSTORED] = 0.0
    log_every: Annotated[int, Mark.UNSTORED] = 100
