"""The density experiment: train flows by maximum likelihood and measure them on test samples."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

import invattn
from invattn._errors import DataError
from invattn.bijections import Composed, initialize
from invattn.checkpoints import TokenFlowConfig, save_model
from invattn.checkpoints.certificate import certificate_of, hash_json
from invattn.data.point_sets import (
    CENTRE_SPREAD,
    CENTRES,
    DIMENSIONS,
    POINT_SPREAD,
    POINTS,
    PointSets,
    approximate_optimum,
    pointwise_limit,
)
from invattn.evaluation import block_radii, inverse_errors, measure_likelihood, refusal
from invattn.experiments.density_config import DensityConfig as DensityConfig
from invattn.experiments.density_figures import SHOWN, make_density_figures, sample_sets
from invattn.experiments.density_pictures import picture_of_sets
from invattn.experiments.figure_data import write_arrays
from invattn.experiments.output_folder import check_output, make_folder
from invattn.experiments.source_hash import source_hash
from invattn.flows import Flow
from invattn.logdet import PowerSeries
from invattn.records import DensityMetrics, DensityRecord, DensityResult, read_json, write_json
from invattn.training import (
    EventLog,
    Interrupted,
    MaximumLikelihood,
    Progress,
    ResumableLoader,
    Worker,
    derive_seed,
    fit,
    on_processes,
)

FIRST_BATCH = 256
"""Samples that the layers which start from data start from."""

INVERTED = 100
"""Test samples that are inverted and whose spectral radii are estimated."""


@dataclass(frozen=True)
class DensityCell:
    """A training of one variant and its evaluation.

    Attributes:
        config: The user's options.
        attention: What stands between the tokens.
        recipe: Form of the attention.
        repeat: Number of the repeat, from 0.
    """

    config: DensityConfig
    attention: str
    recipe: str
    repeat: int

    @property
    def variant(self) -> str:
        """``<attention>-<recipe>``."""
        return f"{self.attention}-{self.recipe}"

    @property
    def name(self) -> str:
        """``<attention>-<recipe>-<repeat>``."""
        return f"{self.variant}-{self.repeat}"

    @property
    def seed(self) -> int:
        """The seed of this training."""
        return self.config.seed + self.repeat

    @property
    def model_config(self) -> TokenFlowConfig:
        """What the flow is built from."""
        return self.config.model_config(self.attention, self.recipe)

    @property
    def key(self) -> str:
        """Hash of everything that the numbers depend on."""
        settings = {name: value for name, value in self.config.settings().items() if name not in _OTHER_CELLS}
        own = {"model": self.model_config.to_json(), "repeat": self.repeat, "code": source_hash()}
        return hash_json(settings | own | {"torch": torch.__version__})

    def file(self, kind: str) -> Path:
        """Return the path of ``<name>.<kind>`` among the cells."""
        return self.config.output / "cells" / f"{self.name}.{kind}"


_OTHER_CELLS = ("attention", "recipe", "repeats", "accelerator", "devices", "nodes", "strategy")


def run_density(config: DensityConfig, progress: Progress) -> DensityRecord:
    """Train and measure every variant of a configuration and write the results.

    Writes ``results.json``, ``model/<variant>/`` and ``artifacts/<variant>.npz`` (of the first repeat) below
    ``config.output``, and keeps every finished cell below ``cells/``: the same command run again skips those.

    Args:
        config: The user's options.
        progress: Is told what goes on.

    Returns:
        The content of ``results.json``.

    Raises:
        DataError: If the output cannot be used, or holds other results; one line that says what to do.
        OSError: If a file cannot be written; it names the file, and finished cells are kept.
        Interrupted: On Ctrl-C; the message says how to continue.
    """
    check_output(config.output)
    config.machines().check(batch_size=config.batch_size)
    cells = _cells(config)
    finished = {cell.name: _finished(cell) for cell in cells}
    make_folder(config.output / "cells")
    try:
        results = [_result(cell, finished[cell.name], progress) for cell in cells]
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"interrupted: finished cells and the state of the training are in {config.output / 'cells'}. "
            "Run the same command with --resume to continue."
        ) from None
    record = _record(config, results)
    write_json(config.output / "results.json", record.to_json())
    return record


def follow_density(config: DensityConfig, progress: Progress) -> None:
    """Do the part of a further machine (NODE_RANK above 0) in a run on several: train with the first, write nothing.

    Both must see the same output folder.

    Args:
        config: The user's options, as on the first machine.
        progress: Is told what goes on.

    Raises:
        DataError: If the output holds other results; one line that says what to do.
        Interrupted: On Ctrl-C.
        WorkerLost: If the first machine does not answer.
    """
    config.machines().check(batch_size=config.batch_size)
    for cell in [cell for cell in _cells(config) if _finished(cell) is None]:
        progress.message(f"{cell.name}: training with the first machine")
        on_processes(partial(_train, cell), config.machines(), progress)


def evaluation_samples(config: DensityConfig) -> Tensor:
    """Return the test samples, the same for every variant and repeat."""
    return PointSets(seed=derive_seed(config.seed, "test sets"))(torch.arange(config.test_size))


def _cells(config: DensityConfig) -> list[DensityCell]:
    return [DensityCell(config, *pair, repeat) for pair in config.variants() for repeat in range(config.repeats)]


def _result(cell: DensityCell, finished: DensityResult | None, progress: Progress) -> DensityResult:
    if finished is not None:
        progress.message(f"{cell.name}: finished before, skipped")
        return finished
    flow, result = on_processes(partial(_train, cell), cell.config.machines(), progress)
    result = measure(flow, evaluation_samples(cell.config), result, progress, seed=cell.seed)
    _write(cell, flow, result)
    if result.refused is not None:
        progress.message(f"{cell.name}: no likelihood, because {result.refused}.")
    return result


def _train(cell: DensityCell, worker: Worker, progress: Progress) -> tuple[Flow, DensityResult]:
    """Train one flow, in every process, and return it with averaged weights; its metrics are still to be measured."""
    config, seed = cell.config, cell.seed
    sets = PointSets(seed=derive_seed(seed, "training sets"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model"))
        bijection = cell.model_config.build_with(PowerSeries(terms=config.terms, shard=worker.shard))
        samples = config.steps * config.batch_size
        initialize(bijection, sets(torch.arange(samples, samples + FIRST_BATCH)))
    module = MaximumLikelihood(
        cell.model_config.distribution(bijection),
        optimisation=config.optimisation(),
        seed=derive_seed(seed, "likelihood"),
        run_key=cell.key,
    )
    loader = ResumableLoader(
        sets,
        num_samples=samples,
        batch_size=config.batch_size,
        epochs=1,
        seed=derive_seed(seed, "order"),
        rank=worker.rank,
        world_size=worker.world_size,
    )
    outcome = fit(
        module,
        loader,
        checkpoint=cell.file("ckpt"),
        resume=config.resume,
        progress=progress,
        task=f"train {cell.name}",
        save_interval=60 * config.checkpoint_minutes,
        worker=worker,
        precision=config.precision,
        callbacks=_event_log(cell, worker),
    )
    if outcome.stopped_at is not None:
        progress.message(
            f"{cell.name}: the training loss was not finite at step {outcome.stopped_at}, first in "
            f"{outcome.stopped_in}; the model of the step before is evaluated."
        )
    extra = {"stopped_at": outcome.stopped_at, "stopped_in": outcome.stopped_in or None, "attention": cell.attention}
    flow = module.average.eval()
    result = unmeasured(cell.variant, flow, seed=seed)
    return flow, replace(
        result,
        cpu_seconds=outcome.cpu_seconds,
        train_loss=list(module.step_losses),
        extra=extra | {"recipe": cell.recipe, "repeat": cell.repeat, "train_seconds": outcome.seconds},
    )


def _event_log(cell: DensityCell, worker: Worker) -> list[EventLog]:
    """Return the log of a training, which the first process alone writes, if there is to be one."""
    every, seed = cell.config.log_every, derive_seed(cell.seed, "logged samples")
    if not (worker.leads and every):
        return []
    folder = cell.config.output / "tensorboard" / cell.name
    return [EventLog(folder, draw=lambda flow: picture_of_sets(sample_sets(flow, SHOWN, seed=seed)), every=every)]


def unmeasured(variant: str, flow: Flow, *, seed: int) -> DensityResult:
    """Return the result of a flow of which only parameters and certificate are known yet."""
    certificate = certificate_of(flow.bijection)
    return DensityResult(
        variant=variant,
        metrics=_NOT_MEASURED,
        seed=seed,
        cpu_seconds=float("nan"),
        parameters=sum(parameter.numel() for parameter in flow.parameters()),
        certificate=None if certificate is None else {name: certificate[name] for name in ("bound", "norm")},
    )


_NOT_MEASURED = DensityMetrics(
    nats_per_dim=None,
    standard_error=None,
    median=float("nan"),
    outliers=0,
    estimator_error=float("nan"),
    inverse_error_max=float("nan"),
    spectral_radius_max=float("nan"),
)


def measure(flow: Flow, test: Tensor, result: DensityResult, progress: Progress, *, seed: int) -> DensityResult:
    """Return a result with the metrics of its flow on test samples.

    Args:
        flow: The trained distribution, in eval mode.
        test: Test samples with shape (n, N, C).
        result: What is known of it already.
        progress: Is told of every batch.
        seed: Decides probes and first vectors.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "evaluation"))
    progress.begin(f"evaluate {result.variant}", total=len(test))
    try:
        found = measure_likelihood(flow, test, generator=generator, on_batch=progress.advance)
        radii = block_radii(flow.bijection, test[:INVERTED], generator=generator)
        errors = inverse_errors(flow.bijection, test[:INVERTED])
    finally:
        progress.end()
    refused = refusal(flow, radii)
    return replace(
        result,
        refused=refused,
        metrics=DensityMetrics(
            nats_per_dim=None if refused else found.mean,
            standard_error=None if refused else found.standard_error,
            median=found.median,
            outliers=found.outliers,
            estimator_error=found.estimator_error,
            inverse_error_max=float(errors.max()),
            spectral_radius_max=max((float(radius.max()) for radius in radii.values()), default=0.0),
        ),
    )


def _write(cell: DensityCell, flow: Flow, result: DensityResult) -> None:
    """Write model and figures of a first repeat, then the numbers; their file says that the cell is done."""
    assert isinstance(flow.bijection, Composed)
    output = cell.config.output
    if cell.repeat == 0:
        save_model(flow.bijection, output / "model" / cell.variant, config=cell.model_config)
        seed = derive_seed(cell.seed, "samples")
        arrays = make_density_figures(flow, evaluation_samples(cell.config), losses=list(result.train_loss), seed=seed)
        make_folder(output / "artifacts")
        write_arrays(output / "artifacts" / f"{cell.variant}.npz", arrays)
    write_json(cell.file("json"), {"key": cell.key, "result": result.to_json()})
    cell.file("ckpt").unlink(missing_ok=True)


def _finished(cell: DensityCell) -> DensityResult | None:
    """Return the kept numbers of a cell, or None if it is not finished.

    Raises:
        DataError: If they are of other options, code or version.
    """
    if not cell.file("json").exists():
        return None
    content = read_json(cell.file("json"))
    if not isinstance(content, dict) or content.get("key") != cell.key:
        raise DataError(
            f"{cell.file('json').parent} holds results of other options, data or code. Choose another --output, or "
            "delete that folder."
        )
    return DensityResult.from_json(content.get("result"))


def _record(config: DensityConfig, results: list[DensityResult]) -> DensityRecord:
    own = {"invattn": invattn.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return DensityRecord(
        command=config.command(),
        seed=config.seed,
        versions=own | {name: version(name) for name in ("lightning", "numpy", "safetensors")},
        data={
            "name": config.data,
            "train": config.steps * config.batch_size,
            "test": config.test_size,
            "dimensions": POINTS * DIMENSIONS,
            "references": {
                "Limit of any model whose points are independent": pointwise_limit(),
                "True density, clusters apart (approximate)": approximate_optimum(),
            },
            "notes": [
                f"generated: {POINTS} points in the plane around {CENTRES} centres from N(0, {CENTRE_SPREAD:g}^2 I), "
                f"each from N(centre, {POINT_SPREAD:g}^2 I); every training sample is used once"
            ],
        },
        settings=config.settings(),
        results=results,
    )
