"""Training of one flow: maximum likelihood as Lightning sees it, and a training from first weights to averaged ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from invattn._errors import ConvergenceError
from invattn.bijections import Bijection, Composed, ResidualBijection, initialize
from invattn.experiments.density.config import DensityConfig
from invattn.experiments.density.data import FITTED, NATS, DensityData, DequantisedData, Unit
from invattn.experiments.density.figures import SHOWN, to_pictures
from invattn.experiments.density.measure import unmeasured
from invattn.experiments.density.record import DensityResult
from invattn.experiments.density.sampling import sample_sets
from invattn.experiments.kit.cells import Cell
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.fit import fit
from invattn.experiments.kit.training.loader import Batch, ResumableLoader, derive_seed, seeded
from invattn.experiments.kit.training.machines import Worker
from invattn.experiments.kit.training.module import EventLog, NonFiniteLoss, ResumableModule, first_text
from invattn.experiments.kit.training.optimisation import Optimisation
from invattn.flows import Dequantised, Flow
from invattn.hub import FlowConfig
from invattn.hub.flow_config import whole_valued
from invattn.logdet import PowerSeries

_REACH = 6.5  # points are shown where both coordinates lie within this distance of 0
_PANEL = 96
_WHITE, _BLUE = (255, 255, 255), (31, 119, 180)


class DensityCell(Cell[DensityConfig, DensityData, DensityResult]):
    """A training of one flow and its evaluation."""

    code: ClassVar[str] = "invattn.experiments.density.run"

    @property
    def model_config(self) -> FlowConfig:
        """What the flow is built from."""
        return self.config.model_config(self.attention, self.recipe)

    def settings(self) -> dict[str, Any]:
        """Return the options and hashes of the data that the numbers depend on."""
        return self.config.settings(of_a_cell=True) | dict(self.data.key)

    def written(self, result: DensityResult) -> dict[str, Any]:
        """Return the result under its name in the cell's file."""
        return {"result": result.to_json()}

    def read(self, content: dict[str, Any]) -> DensityResult:
        """Return the result that a cell's file holds."""
        return DensityResult.from_json(content.get("result"))


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
        self.flow, self.average = flow, copy.deepcopy(flow).requires_grad_(False)
        self.unit, self.gradient_norm = unit, 0.0
        self._optimisation, self._seed = optimisation, seed

    @property
    def averaged_flow(self) -> Flow:
        """The flow with averaged weights, without the noise that whole values are spread by."""
        return self.average.flow if isinstance(self.average, Dequantised) else self.average

    @property
    def note(self) -> str:
        recent = self.step_losses[-10:]
        return f"{self.unit.of(sum(recent) / len(recent)):.3f} {self.unit.name}"

    @property
    def scalars(self) -> dict[str, float]:
        loss = {f"loss/{self.unit.name.replace('/', '_per_')}": self.unit.of(self.step_losses[-1])}
        return loss | {"learning_rate": self.learning_rate, "gradient_norm": self.gradient_norm}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean of -log p(x) / d over a batch.

        Raises:
            NonFiniteLoss: If it is NaN or infinite, with the first block where it is; the weights are left as they are.
        """
        with seeded(self._seed, "probes", batch.step, near=batch.images):
            loss: Tensor = -self.flow(batch.images).float().mean() / batch.images[0].numel()
        try:
            self.keep_loss(loss, step=batch.step)
        except NonFiniteLoss:
            with seeded(self._seed, "probes", batch.step, near=batch.images):
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
            self.check_gradient(self.flow)
            raise NonFiniteLoss(len(self.step_losses) - 1, part="the norm of the gradient")
        self.gradient_norm = float(norm)
        nn.utils.clip_grads_with_norm_(parameters, self._optimisation.clip, norm)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Make the step, then update the average: before any callback can save a state in between."""
        super().optimizer_step(*arguments, **options)
        self._optimisation.average(self.average, self.flow, step=len(self.step_losses))


@torch.no_grad()
def first_non_finite(bijection: Bijection, x: Tensor) -> str:
    """Return which part of a map first gives a value that is not finite at a batch, in words; empty if none does."""
    if not _is_finite(x):
        return "the data"
    for number, part in enumerate(bijection.parts()):
        x, log_det = part.forward_and_log_det(x)
        if not (_is_finite(x) and _is_finite(log_det)):
            kind = part.branch.kind if isinstance(part, ResidualBijection) else type(part).__name__
            return f"part {number} of the flow ({kind})"
    return ""


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def train_flow(cell: DensityCell, deadline: float, worker: Worker, progress: Progress) -> tuple[Flow, DensityResult]:
    """Train one flow, in every process, and return it with averaged weights; its metrics are still to be measured.

    Args:
        cell: The training.
        deadline: When to stop, on the clock of ``time.monotonic``.
        worker: This process.
        progress: Is told every step.

    Raises:
        Interrupted: On Ctrl-C and at the deadline; the state is saved.
        DataError: If the state to resume from is damaged or of another run.
    """
    config, data = cell.config, cell.data
    start = started_flow(cell, worker)
    module = MaximumLikelihood(
        whole_valued(start, levels=data.levels) if isinstance(data, DequantisedData) and data.learned else start,
        optimisation=config,
        seed=derive_seed(cell.seed, "likelihood"),
        unit=data.unit,
        run_key=cell.key,
    )
    outcome = fit(
        module,
        _loader(cell, worker),
        checkpoint=cell.file("ckpt"),
        resume=config.resume,
        progress=progress,
        task=f"train {cell.name}",
        save_interval=60 * config.checkpoint_minutes,
        worker=worker,
        precision=config.precision,
        callbacks=_event_log(cell, module, worker),
        deadline=deadline,
    )
    extra = {"stopped_at": outcome.stopped_at, "stopped_in": outcome.stopped_in or None, "attention": cell.attention}
    flow = module.averaged_flow.eval()
    result = unmeasured(cell.variant, flow, seed=cell.seed, unit=data.unit)
    return flow, replace(
        result,
        refused=outcome.stop_reason,
        cpu_seconds=outcome.cpu_seconds,
        train_loss=[data.unit.of(loss) for loss in module.step_losses],
        extra=extra | {"recipe": cell.recipe, "repeat": cell.repeat, "train_seconds": outcome.seconds},
    )


def started_flow(cell: DensityCell, worker: Worker) -> Flow:
    """Return the flow before its first step: weights drawn from the seed, data-dependent layers started from data.

    Where a state is resumed, it holds those layers as they were started, and nothing is fitted once more.
    """
    config, seed = cell.config, cell.seed
    used = cell.data.train_size(steps=config.steps, batch_size=config.batch_size)
    with seeded(seed, "model"):
        bijection = cell.model_config.build_with(PowerSeries(terms=config.terms, shard=worker.shard))
        if not (config.resume and cell.file("ckpt").exists()):
            start_from_data(bijection, cell.data.first(seed=seed, used=used))
    return cell.model_config.distribution(bijection)


def start_from_data(chain: Composed, x: Tensor) -> None:
    """Start the layers before the first residual block from all samples, the others from the first ``FITTED``.

    The layers at the front, such as whitening, may need many samples and are cheap; to send so many through a whole
    flow would need too much memory.
    """
    parts = chain.parts()
    closed = [not any(isinstance(inner, ResidualBijection) for inner in part.modules()) for part in parts]
    front = parts[: (*closed, False).index(False)]
    if front:
        initialize(Composed(front), x)
    initialize(chain, x[:FITTED])


def _event_log(cell: DensityCell, module: MaximumLikelihood, worker: Worker) -> list[EventLog]:
    """Return the log of a training, which the first process alone writes, if there is to be one."""
    if not (worker.leads and cell.config.log_every):
        return []
    folder, seed = cell.config.output / "tensorboard" / cell.name, derive_seed(cell.seed, "logged samples")
    every = cell.config.log_every
    return [EventLog(folder, draw=lambda: sample_picture(module.averaged_flow, seed=seed), name="samples", every=every)]


def _loader(cell: DensityCell, worker: Worker) -> ResumableLoader:
    config, seed = cell.config, cell.seed
    samples = cell.data.train_size(steps=config.steps, batch_size=config.batch_size)
    return ResumableLoader(
        cell.data.training(seed=seed),
        num_samples=samples,
        batch_size=config.batch_size,
        epochs=math.ceil(config.steps / (samples // config.batch_size)),
        seed=derive_seed(seed, "order"),
        rank=worker.rank,
        world_size=worker.world_size,
        steps=config.steps,
    )


def sample_picture(flow: Flow, *, seed: int) -> NDArray[np.uint8] | None:
    """Return samples as a picture, shape (3, H, W): images side by side, points of the plane or of each set as dots.

    None where a sample has no inverse, as an uncertified flow may not have one yet: that is reported after training.
    """
    try:
        samples = sample_sets(flow, SHOWN, seed=seed)
    except ConvergenceError:
        return None
    if samples.dim() == 4:
        return picture_of_images(samples)
    return picture_of_sets(samples if samples.dim() == 3 else samples[None])


def picture_of_images(images: Tensor) -> NDArray[np.uint8]:
    """Return images with shape (n, 1 or 3, H, W) side by side, shape (3, H, n (W + 1) - 1).

    They lie in [-0.5, 0.5); what lies outside is clipped.
    """
    return _side_by_side(to_pictures(images, levels=256).numpy())


def picture_of_sets(sets: Tensor) -> NDArray[np.uint8]:
    """Return sets of points, shape (n, N, 2), side by side as dots, shape (3, 96, 97 n - 1).

    The second coordinate goes upwards; points that are far away or not finite are left out.
    """
    panels = []
    for points in sets.detach().cpu().double().numpy():
        panel = np.full((_PANEL, _PANEL, 3), _WHITE, dtype=np.uint8)
        inside = points[np.abs(points).max(axis=1) < _REACH]
        columns, rows = ((inside / _REACH + 1) / 2 * (_PANEL - 1)).astype(np.int64).T
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            panel[_PANEL - 2 - rows + down, columns + right] = _BLUE
        panels.append(panel)
    return _side_by_side(panels)


def _side_by_side(panels: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put panels with shape (H, W, 3) into one row, a black line between them, colours first."""
    framed = [np.pad(panel, ((0, 0), (0, 1), (0, 0))) for panel in panels]
    return np.concatenate(framed, axis=1)[:, :-1].transpose(2, 0, 1)
