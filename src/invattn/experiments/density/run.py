"""The density experiment: train flows by maximum likelihood and measure them on test samples."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import torch

import invattn
from invattn._errors import DataError
from invattn._files import remove_leftovers, write_json
from invattn.bijections import Composed
from invattn.experiments.density.cells import DensityCell
from invattn.experiments.density.config import DensityConfig as DensityConfig
from invattn.experiments.density.data import DensityData, DequantisedData, GeneratedData, open_images
from invattn.experiments.density.figures import make_density_figures, make_image_figures, make_plane_figures
from invattn.experiments.density.likelihood import LikelihoodReport
from invattn.experiments.density.measure import inputs_of_test, measure
from invattn.experiments.density.record import DensityRecord, DensityResult
from invattn.experiments.density.stored import DATA_FILE
from invattn.experiments.density.training import train_flow
from invattn.experiments.kit.arrays import Arrays, write_arrays
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.run import check_output, make_folder
from invattn.experiments.kit.training.companions import on_processes
from invattn.experiments.kit.training.fit import without_tf32
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Flow
from invattn.hub import save_model


def run_density(config: DensityConfig, progress: Progress) -> DensityRecord:
    """Train and measure every variant of a configuration and write the results.

    Writes ``results.json``, ``model/<variant>/`` (of the first repeat) and ``artifacts/<variant>.npz`` below
    ``config.output``, and keeps every finished cell below ``cells/``: the same command run again skips those. Further
    repeats keep the likelihood of every test sample in ``artifacts/<variant>-<repeat>.npz``.

    Args:
        config: The user's options.
        progress: Is told what goes on.

    Returns:
        The content of ``results.json``.

    Raises:
        DataError: If the data or the output cannot be used, or the output holds other results; one line.
        OSError: If a file cannot be written; it names the file, and finished cells are kept.
        Interrupted: On Ctrl-C, and when the minutes are over; the message says how to continue.
    """
    deadline = _deadline(config)
    check_output(config.output)
    config.machines().check(batch_size=config.batch_size)
    data = open_data(config)
    config = with_steps(config, data)
    cells = _cells(config, data)
    finished = {cell.name: cell.finished() for cell in cells}
    remove_leftovers(make_folder(config.output / "cells"))
    try:
        results = [_result(cell, finished[cell.name], deadline, progress) for cell in cells]
    except (KeyboardInterrupt, Interrupted):
        why = f"{config.max_minutes:g} minutes are over" if time.monotonic() >= deadline else "interrupted"
        raise Interrupted(
            f"{why}: finished cells and the state of the training are in {config.output / 'cells'}. "
            "Run the same command with --resume to continue."
        ) from None
    record = _record(config, data, results)
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
    deadline = _deadline(config)
    config.machines().check(batch_size=config.batch_size)
    data = open_data(config)
    for cell in [cell for cell in _cells(with_steps(config, data), data) if cell.finished() is None]:
        progress.message(f"{cell.name}: training with the first machine")
        on_processes(partial(train_flow, cell, deadline), config.machines(), progress)


def _deadline(config: DensityConfig) -> float:
    """Return when training has to stop, on the clock of ``time.monotonic``."""
    return time.monotonic() + 60 * config.max_minutes if config.max_minutes else math.inf


def _cells(config: DensityConfig, data: DensityData) -> list[DensityCell]:
    pairs = [(*pair, repeat) for pair in config.variants() for repeat in range(config.repeats)]
    return [DensityCell(config, data, *pair) for pair in pairs]


def open_data(config: DensityConfig) -> DensityData:
    """Return the data of a run.

    Raises:
        DataError: If they cannot be used; one line that says what to do.
    """
    if config.family != "images":
        return GeneratedData(config.data, test_size=config.test_size, seed=config.seed)
    request = ImageRequest(
        config.data,
        data_root=config.data_root,
        train_size=config.train_size,
        test_size=config.test_size,
        image_size=config.image_size,
        seed=config.seed,
    )
    return open_images(request, flips=config.flips, learned=config.dequantisation == "variational")


def with_steps(config: DensityConfig, data: DensityData) -> DensityConfig:
    """Turn passes over the training images into steps.

    Raises:
        DataError: If there are fewer training images than a batch has, or epochs of generated samples are asked for.
    """
    images = data.train_size(steps=config.steps, batch_size=config.batch_size)
    if images < config.batch_size:
        raise DataError(
            f"a batch of {config.batch_size} images was asked for and there are {images} training images. Choose a "
            "smaller --batch-size or a larger --train-size."
        )
    if config.epochs == 0:
        return config
    if config.family != "images":
        raise DataError(f"{config.data} is generated anew at every step and has no epochs. Give --steps.")
    return replace(config, steps=config.epochs * (images // config.batch_size), epochs=0)


def _result(cell: DensityCell, finished: DensityResult | None, deadline: float, progress: Progress) -> DensityResult:
    if finished is not None:
        progress.message(f"{cell.name}: finished before, skipped")
        return finished
    machines = cell.config.machines()
    flow, result = on_processes(partial(train_flow, cell, deadline), machines, progress)
    if result.extra["stopped_at"] is not None:
        progress.message(f"{cell.name}: {result.refused}. Its last saved state stays in {cell.file('ckpt')}.")
        cell.finish(result)
        return result
    flow = flow.to("cuda" if machines.on_gpu else "cpu")
    with without_tf32():
        test = inputs_of_test(flow, cell.data)
        result, found = measure(flow, test, result, progress, seed=cell.seed, unit=cell.data.unit)
        _write(cell, flow, result, found)
    if result.refused is not None:
        progress.message(f"{cell.name}: no likelihood, because {result.refused}.")
    return result


def _write(cell: DensityCell, flow: Flow, result: DensityResult, found: LikelihoodReport) -> None:
    """Write model and figures of a first repeat, then the numbers; their file says that the cell is done."""
    assert isinstance(flow.bijection, Composed)
    output, unit = cell.config.output, cell.data.unit
    per_sample = found.nats + unit.offset / unit.scale
    arrays: Arrays = {"nats": per_sample.cpu().numpy()}
    name = cell.variant if cell.repeat == 0 else cell.name
    if cell.repeat == 0:
        arrays |= _figures(cell, flow, list(result.train_loss))
        folder = output / "model" / cell.variant
        save_model(flow.cpu().bijection, folder, config=cell.model_config)
        write_json(folder / DATA_FILE, cell.data.describe())
    make_folder(output / "artifacts")
    write_arrays(output / "artifacts" / f"{name}.npz", arrays)
    cell.finish(result)


def _figures(cell: DensityCell, flow: Flow, losses: list[float]) -> Arrays:
    """Return the arrays behind the figures of one flow, which may end on another device."""
    test, seed = inputs_of_test(flow, cell.data).x, derive_seed(cell.seed, "samples")
    if isinstance(cell.data, DequantisedData):
        train = (cell.data.images.train.float() + 0.5) / cell.data.levels - 0.5
        return make_image_figures(flow, train, test, losses=losses, seed=seed, levels=cell.data.levels)
    make_figures = make_density_figures if cell.config.family == "sets" else make_plane_figures
    return make_figures(flow.cpu(), test.cpu(), losses=losses, seed=seed)


def _record(config: DensityConfig, data: DensityData, results: list[DensityResult]) -> DensityRecord:
    own = {"invattn": invattn.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return DensityRecord(
        command=config.command(),
        seed=config.seed,
        versions=own | {name: version(name) for name in ("lightning", "numpy", "safetensors")},
        data=data.record(steps=config.steps, batch_size=config.batch_size),
        settings=config.settings(),
        results=results,
    )
