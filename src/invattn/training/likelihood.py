"""Training of a flow by maximum likelihood."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from invattn.bijections import Bijection, Composed, ResidualBijection
from invattn.flows import Flow
from invattn.training.resumable_loader import Batch
from invattn.training.resumable_module import NonFiniteLoss, ResumableModule
from invattn.training.seeds import derive_seed


class MaximumLikelihood(ResumableModule):
    """Minimises -log p(x) / d, in nats per dimension, with warm-up, cosine decay, clipping and an average of weights.

    Random probes of the log-determinant are a function of the seed and the step, so that a resumed training draws
    what an uninterrupted one draws.

    Args:
        flow: The distribution; layers that start from data have been started.
        steps: Number of steps of the whole training.
        lr: Largest learning rate of Adam.
        warm_up: Steps in which it rises linearly; then it falls to 0 along a cosine.
        clip: Largest norm of the gradient; longer ones are scaled.
        averaging: Decay of the exponential moving average of the weights; 0 averages nothing. Early steps use
            (1 + step) / (10 + step) where that is smaller.
        seed: Decides the probes.
        run_key: Identifies the run; a checkpoint with another key is not resumed.

    Attributes:
        average: The flow with averaged weights: the one to evaluate.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        steps: int,
        lr: float = 5e-3,
        warm_up: int = 20,
        clip: float = 1.0,
        averaging: float = 0.98,
        seed: int = 0,
        run_key: str = "",
    ) -> None:
        super().__init__(run_key=run_key)
        if not 0 <= averaging < 1:
            raise ValueError(f"averaging must be at least 0 and below 1; got {averaging}.")
        self.flow = flow
        self.average = copy.deepcopy(flow).requires_grad_(False)
        self._rate = cosine_with_warm_up(steps, warm_up=warm_up)
        self._lr, self._clip, self._averaging, self._seed = lr, clip, averaging, seed

    @property
    def note(self) -> str:
        recent = self.step_losses[-10:]
        return f"{sum(recent) / len(recent):.3f} nats/dim"

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean of -log p(x) / d over a batch.

        Raises:
            NonFiniteLoss: If it is NaN or infinite, with the first block where it is; the weights are left as they are.
        """
        with seeded_probes(self._seed, batch.step):
            loss: Tensor = -self.flow(batch.images).mean() / batch.images[0].numel()
        try:
            self.keep_loss(loss, step=batch.step)
        except NonFiniteLoss:
            with seeded_probes(self._seed, batch.step):
                part = first_non_finite(self.flow.bijection, batch.images)
            raise NonFiniteLoss(batch.step, part=part) from None
        return loss

    def configure_optimizers(self) -> Any:
        """Return Adam over the weights of the flow, and its learning rate of every step."""
        optimizer = torch.optim.Adam(self.flow.parameters(), lr=self._lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Scale the gradient to the largest norm.

        Raises:
            NonFiniteLoss: If it is not finite, with the first block where it is not; no step is made.
        """
        bad = [name for name, value in self.flow.named_parameters() if not _is_finite(value.grad)]
        if bad:
            raise NonFiniteLoss(len(self.step_losses) - 1, part=f"the gradient of {bad[0]}")
        nn.utils.clip_grad_norm_(self.flow.parameters(), self._clip)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Make the step, then update the average: before any callback can save a state in between."""
        super().optimizer_step(*arguments, **options)
        step = len(self.step_losses)
        decay = min(self._averaging, (1 + step) / (10 + step)) if self._averaging else 0.0
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.flow.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)


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


@contextmanager
def seeded_probes(seed: int, step: int) -> Iterator[None]:
    """Draw from torch's default generator as a function of (seed, step) inside the block, and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "probes", step))
        yield


@torch.no_grad()
def first_non_finite(bijection: Bijection, x: Tensor) -> str:
    """Return which part of a map first gives a value that is not finite, in words; empty if none does.

    Args:
        bijection: The map; the parts of a chain are tried one after another.
        x: The batch at which it happens.
    """
    if not _is_finite(x):
        return "the data"
    parts = list(bijection.bijections) if isinstance(bijection, Composed) else [bijection]
    for number, part in enumerate(parts):
        assert isinstance(part, Bijection)
        x, log_det = part.forward_and_log_det(x)
        if not (_is_finite(x) and _is_finite(log_det)):
            kind = part.branch.kind if isinstance(part, ResidualBijection) else type(part).__name__
            return f"part {number} of the flow ({kind})"
    return ""


def _is_finite(value: Tensor | None) -> bool:
    return value is None or bool(value.isfinite().all())
