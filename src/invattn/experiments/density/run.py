"""The density experiment: train flows by maximum likelihood and measure them on test samples."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from invattn._errors import DataError
from invattn._files import write_json
from invattn.bijections import Composed
from invattn.experiments.density.config import DensityConfig as DensityConfig
from invattn.experiments.density.data import DensityData, DequantisedData, GeneratedData, open_images
from invattn.experiments.density.figures import make_density_figures, make_image_figures, make_plane_figures
from invattn.experiments.density.likelihood import LikelihoodReport
from invattn.experiments.density.measure import inputs_of_test, measure
from invattn.experiments.density.record import DensityRecord, DensityResult
from invattn.experiments.density.stored import DATA_FILE
from invattn.experiments.density.training import DensityCell, train_flow
from invattn.experiments.kit.cells import Deadline, follow_cells, run_cells
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.output import Arrays, check_output, library_versions
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.companions import on_processes
from invattn.experiments.kit.training.fit import without_tf32
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Flow
from invattn.hub import save_model


def run_density(config: DensityConfig, progress: Progress) -> DensityRecord:
    """Train and measure every variant of a configuration; write and return what ``results.json`` holds.

    Writes ``results.json``, ``model/<variant>/`` (of the first repeat) and ``artifacts/<variant>.npz`` below
    ``config.output``, and keeps every finished cell below ``cells/``: the same command run again skips those. Further
    repeats keep the likelihood of every test sample in ``artifacts/<variant>-<repeat>.npz``.

    Raises:
        DataError: If the data or the output cannot be used, or the output holds other results; one line.
        OSError: If a file cannot be written; it names the file, and finished cells are kept.
        Interrupted: On Ctrl-C, and when the minutes are over; the message says how to continue.
    """
    deadline = Deadline.after(config.max_minutes)
    check_output(config.output)
    config.machines().check(batch_size=config.batch_size)
    data = open_data(config)
    config = with_steps(config, data)
    return run_cells(
        make_cells(config, data),
        progress,
        run=partial(_result, deadline),
        record=partial(_record, config, data),
        deadline=deadline,
    )


def follow_density(config: DensityConfig, progress: Progress) -> None:
    """Do the part of a further machine in a run on several, as :func:`~invattn.experiments.kit.cells.follow_cells`."""
    deadline = Deadline.after(config.max_minutes)
    config.machines().check(batch_size=config.batch_size)
    data = open_data(config)
    cells = make_cells(with_steps(config, data), data)
    follow_cells(cells, progress, task=lambda cell: partial(train_flow, cell, deadline.at), machines=config.machines())


def make_cells(config: DensityConfig, data: DensityData) -> list[DensityCell]:
    """Return every training of a run, repeats innermost."""
    return [
        DensityCell(config=config, data=data, attention=attention, recipe=recipe, repeat=repeat)
        for attention, recipe in config.variants()
        for repeat in range(config.repeats)
    ]


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


def _result(deadline: Deadline, cell: DensityCell, progress: Progress) -> DensityResult:
    machines = cell.config.machines()
    flow, result = on_processes(partial(train_flow, cell, deadline.at), machines, progress)
    if result.extra["stopped_at"] is not None:
        cell.leave(result, str(result.refused), progress)
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
    unit = cell.data.unit
    per_sample = found.nats + unit.offset / unit.scale
    arrays: Arrays = {"nats": per_sample.cpu().numpy()}
    if cell.repeat == 0:
        arrays |= _figures(cell, flow, list(result.train_loss))
        save_model(flow.cpu().bijection, cell.model_folder, config=cell.model_config)
        write_json(cell.model_folder / DATA_FILE, cell.data.describe())
    cell.write_figures(arrays)
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
    return DensityRecord(
        command=config.command(),
        seed=config.seed,
        versions=library_versions(),
        data=data.record(steps=config.steps, batch_size=config.batch_size),
        settings=config.settings(),
        results=results,
    )
