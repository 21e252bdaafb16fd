"""Train one flow of the density experiment."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invattn.bijections import Composed, ResidualBijection, initialize
from invattn.experiments.density.cells import DensityCell
from invattn.experiments.density.data import FITTED, DequantisedData
from invattn.experiments.density.figures import SHOWN
from invattn.experiments.density.measure import unmeasured, whole_valued
from invattn.experiments.density.record import DensityResult
from invattn.experiments.density.sampling import sample_sets
from invattn.experiments.density.training import EventLog, MaximumLikelihood
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.fit import fit
from invattn.experiments.kit.training.loader import ResumableLoader, derive_seed
from invattn.experiments.kit.training.machines import Worker
from invattn.flows import Dequantised, Flow
from invattn.logdet import PowerSeries

REACH = 6.5
"""Points are shown where both coordinates lie within this distance of 0."""

_PANEL = 96
_WHITE, _BLUE = (255, 255, 255), (31, 119, 180)


def picture_of(samples: Tensor) -> NDArray[np.uint8]:
    """Return samples as a picture: images side by side, the points of the plane or of each set as dots.

    Args:
        samples: Images (n, C, H, W) in [-0.5, 0.5), sets (n, N, 2), or points (n, 2).
    """
    if samples.dim() == 4:
        return picture_of_images(samples)
    return picture_of_sets(samples if samples.dim() == 3 else samples[None])


def picture_of_images(images: Tensor) -> NDArray[np.uint8]:
    """Return images side by side.

    Args:
        images: Shape (n, C, H, W) with one or three channels, in [-0.5, 0.5); what lies outside is clipped.

    Returns:
        Red, green and blue, shape (H, n (W + 1) - 1, 3).
    """
    levels = (256 * (images.detach().cpu().double().nan_to_num() + 0.5)).floor().clamp(0, 255)
    colours = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    between = np.zeros((colours.shape[1], 1, 3), dtype=np.uint8)
    panels = [part for image in colours for part in (image, between)]
    return np.concatenate(panels[:-1], axis=1)


def picture_of_sets(sets: Tensor) -> NDArray[np.uint8]:
    """Return sets of points of the plane side by side as dots, the second coordinate upwards.

    Args:
        sets: Shape (n, N, 2); points that are far away or not finite are left out.

    Returns:
        Red, green and blue, shape (96, 97 n - 1, 3).
    """
    panels = []
    for points in sets.detach().cpu().double().numpy():
        panel = np.full((_PANEL, _PANEL, 3), _WHITE, dtype=np.uint8)
        inside = points[np.abs(points).max(axis=1) < REACH]
        columns, rows = ((inside / REACH + 1) / 2 * (_PANEL - 1)).astype(np.int64).T
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            panel[_PANEL - 2 - rows + down, columns + right] = _BLUE
        panels += [panel, np.zeros((_PANEL, 1, 3), dtype=np.uint8)]
    return np.concatenate(panels[:-1], axis=1)


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
    config = cell.config
    module = MaximumLikelihood(
        _trained(cell, started_flow(cell, worker)),
        optimisation=config.optimisation(),
        seed=derive_seed(cell.seed, "likelihood"),
        unit=cell.data.unit,
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
        callbacks=_event_log(cell, worker),
        deadline=deadline,
    )
    extra = {"stopped_at": outcome.stopped_at, "stopped_in": outcome.stopped_in or None, "attention": cell.attention}
    flow = module.averaged_flow.eval()
    result = unmeasured(cell.variant, flow, seed=cell.seed, unit=cell.data.unit)
    return flow, replace(
        result,
        refused=None if outcome.stopped_at is None else stop_reason(outcome.stopped_at, outcome.stopped_in),
        cpu_seconds=outcome.cpu_seconds,
        train_loss=[cell.data.unit.of(loss) for loss in module.step_losses],
        extra=extra | {"recipe": cell.recipe, "repeat": cell.repeat, "train_seconds": outcome.seconds},
    )


def stop_reason(step: int, part: str) -> str:
    """Say in words why a training stopped before its last step."""
    return f"the training loss was not finite at step {step}" + (f", first in {part}" if part else "")


def started_flow(cell: DensityCell, worker: Worker) -> Flow:
    """Return the flow before its first step: weights drawn from the seed, data-dependent layers started from data.

    Where a state is resumed, it holds those layers as they were started, and nothing is fitted once more.
    """
    config, seed = cell.config, cell.seed
    used = cell.data.train_size(steps=config.steps, batch_size=config.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model"))
        bijection = cell.model_config.build_with(PowerSeries(terms=config.terms, shard=worker.shard))
        if not (config.resume and cell.file("ckpt").exists()):
            start_from_data(bijection, cell.data.first(seed=seed, used=used))
    return cell.model_config.distribution(bijection)


def _trained(cell: DensityCell, flow: Flow) -> Flow | Dequantised:
    """Return what is trained: the flow, or where noise is learned the distribution of whole grey levels."""
    if isinstance(cell.data, DequantisedData) and cell.data.learned:
        return whole_valued(flow, levels=cell.data.levels)
    return flow


def start_from_data(chain: Composed, x: Tensor) -> None:
    """Start the layers before the first residual block from all samples, the others from the first ``FITTED``.

    The layers at the front, such as whitening, may need many samples and are cheap; to send so many through a whole
    flow would need too much memory.

    Args:
        chain: The flow's bijection.
        x: Samples with shape (B, *event).
    """
    parts = chain.parts()
    closed = [not any(isinstance(inner, ResidualBijection) for inner in part.modules()) for part in parts]
    front = parts[: (*closed, False).index(False)]
    if front:
        initialize(Composed(front), x)
    initialize(chain, x[:FITTED])


def _event_log(cell: DensityCell, worker: Worker) -> list[EventLog]:
    """Return the log of a training, which the first process alone writes, if there is to be one."""
    every, seed = cell.config.log_every, derive_seed(cell.seed, "logged samples")
    if not (worker.leads and every):
        return []
    folder = cell.config.output / "tensorboard" / cell.name
    return [EventLog(folder, draw=lambda flow: picture_of(sample_sets(flow, SHOWN, seed=seed)), every=every)]


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
