"""What TensorBoard shows of a training while it runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from invattn._errors import ConvergenceError
from invattn.bijections import Bijection, ResidualBijection
from invattn.experiments.kit.training.loader import Batch, derive_seed
from invattn.experiments.kit.training.module import NonFiniteLoss, ResumableModule, first_text
from invattn.experiments.kit.training.optimisation import Optimisation
from invattn.flows import Dequantised, Flow


@dataclass(frozen=True)
class Unit:
    """scale * l + offset, where l is -log p(x) / d in nats per dimension.

    Attributes:
        name: As it is shown, such as ``bits/dim``.
        scale: How many of the unit a nat is.
        offset: What it adds, in the unit, where the data were scaled before.
    """

    name: str
    scale: float = 1.0
    offset: float = 0.0

    def of(self, nats: float) -> float:
        """Return a value in nats per dimension in this unit."""
        return self.scale * nats + self.offset


NATS = Unit("nats/dim")


def bits(*, levels: int = 1) -> Unit:
    """Return bits per dimension of data with whole values, which the flow sees divided by ``levels``.

    p(x) = p(x / levels) / levels^d, so that every dimension costs log2(levels) more bits.

    Args:
        levels: Number of grey levels, such as 256; 1 where data were not scaled.
    """
    return Unit("bits/dim", scale=1 / math.log(2), offset=math.log2(levels))


class MaximumLikelihood(ResumableModule):
    """Minimises -log p(x) / d, in nats per dimension; of whole values the evidence lower bound of -log P(v) / d.

    Whatever the flow draws from torch's default generators, such as the probes of the log-determinant, is a function
    of the seed and the step, so that a resumed training draws what an uninterrupted one draws. With several processes
    all draw the same: what belongs to samples must be drawn through :class:`invattn.logdet.Shard`.

    Args:
        flow: The distribution; layers that start from data have been started. Noise of whole values is trained, too.
        optimisation: How the weights are updated.
        seed: Decides what is drawn.
        unit: Of the loss that is shown; the loss that is minimised and kept is in nats per dimension.
        run_key: Identifies the run; a checkpoint with another key is not resumed.

    Attributes:
        average: The flow with averaged weights: the one to evaluate.
        unit: Of the loss that is shown.
        learning_rate: Of the last step.
        gradient_norm: Norm of the last gradient, before it was clipped.
    """

    def __init__(
        self,
        flow: Flow | Dequantised,
        *,
        optimisation: Optimisation,
        seed: int = 0,
        unit: Unit = NATS,
        run_key: str = "",
    ) -> None:
        super().__init__(run_key=run_key)
        self.flow = flow
        self.average = copy.deepcopy(flow).requires_grad_(False)
        self.unit = unit
        self.learning_rate = self.gradient_norm = 0.0
        self._optimisation, self._seed = optimisation, seed

    @property
    def averaged_flow(self) -> Flow:
        """The flow with averaged weights, without the noise that whole values are spread by."""
        return self.average.flow if isinstance(self.average, Dequantised) else self.average

    @property
    def note(self) -> str:
        recent = self.step_losses[-10:]
        return f"{self.unit.of(sum(recent) / len(recent)):.3f} {self.unit.name}"

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean of -log p(x) / d over a batch.

        Raises:
            NonFiniteLoss: If it is NaN or infinite, with the first block where it is; the weights are left as they are.
        """
        with seeded_probes(self._seed, batch.step, near=batch.images):
            loss: Tensor = -self.flow(batch.images).float().mean() / batch.images[0].numel()
        try:
            self.keep_loss(loss, step=batch.step)
        except NonFiniteLoss:
            with seeded_probes(self._seed, batch.step, near=batch.images):
                part = self._first_non_finite(batch.images)
            raise NonFiniteLoss(batch.step, part=first_text(part)) from None
        return loss

    def _first_non_finite(self, batch: Tensor) -> str:
        if not isinstance(self.flow, Dequantised):
            return first_non_finite(self.flow.bijection, batch)
        with torch.no_grad():
            x, cost = self.flow.spread(batch)
        if not (_is_finite(x) and _is_finite(cost)):
            return "the dequantisation noise"
        return first_non_finite(self.flow.flow.bijection, x)

    def configure_optimizers(self) -> Any:
        """Return the optimiser of the flow's weights, and its learning rate of every step."""
        return self._optimisation.optimizers(self.flow)

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Scale the gradient to the largest norm.

        Raises:
            NonFiniteLoss: If it is not finite, with the first weight where it is not; no step is made.
        """
        parameters = [value for value in self.flow.parameters() if value.grad is not None]
        norm = nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None])
        if not _is_finite(norm):
            bad = [name for name, value in self.flow.named_parameters() if not _is_finite(value.grad)]
            part = f"the gradient of {bad[0]}" if bad else "the norm of the gradient"
            raise NonFiniteLoss(len(self.step_losses) - 1, part=part)
        self.gradient_norm = float(norm)
        nn.utils.clip_grads_with_norm_(parameters, self._optimisation.clip, norm)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Make the step, then update the average: before any callback can save a state in between."""
        self.learning_rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        super().optimizer_step(*arguments, **options)
        self._optimisation.average(self.average, self.flow, step=len(self.step_losses))


@contextmanager
def seeded_probes(seed: int, step: int, *, near: Tensor | None = None) -> Iterator[None]:
    """Draw from torch's default generators as a function of (seed, step) inside the block; leave them as they were.

    Args:
        seed: Of the training.
        step: The step.
        near: A tensor on the device whose generator is used too; None for the CPU alone.
    """
    devices = [near.device] if near is not None and near.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
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
    for number, part in enumerate(bijection.parts()):
        x, log_det = part.forward_and_log_det(x)
        if not (_is_finite(x) and _is_finite(log_det)):
            kind = part.branch.kind if isinstance(part, ResidualBijection) else type(part).__name__
            return f"part {number} of the flow ({kind})"
    return ""


def _is_finite(value: Tensor | None) -> bool:
    return value is None or bool(value.isfinite().all())


if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Picture = NDArray[np.uint8]
"""Red, green and blue with shape (H, W, 3)."""


class EventLog(Callback):
    """Logs loss, learning rate and gradient norm of every step, and samples of the averaged flow every so many steps.

    A resumed training appends to the folder, and what an interrupted one logged after its last save is dropped. The
    training itself does not notice: its weights are the same with and without a log.

    Args:
        folder: Where TensorBoard reads; it is made if it is missing.
        draw: Returns a picture of samples of a flow; it must draw from a generator of its own.
        every: Steps between pictures, at least 1.
    """

    def __init__(self, folder: Path, *, draw: Callable[[Flow], Picture], every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1; got {every}.")
        self._folder, self._draw, self._every = folder, draw, every
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
        assert isinstance(pl_module, MaximumLikelihood)
        step, unit = trainer.global_step, pl_module.unit
        self._scalar(f"loss/{unit.name.replace('/', '_per_')}", unit.of(pl_module.step_losses[-1]), step)
        self._scalar("learning_rate", pl_module.learning_rate, step)
        self._scalar("gradient_norm", pl_module.gradient_norm, step)
        if step % self._every == 0:
            self._samples(pl_module.averaged_flow, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the log."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the log."""
        self._close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def _samples(self, flow: Flow, step: int) -> None:
        try:
            picture = self._draw(flow)
        except ConvergenceError:
            return  # an uncertified flow may have no inverse there; that is reported after training
        if self._writer is not None:
            self._writer.add_image("samples", picture, step, dataformats="HWC")

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
