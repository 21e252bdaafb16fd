"""The reconstruction experiment: train on a random target, send test images through the block and back."""

from __future__ import annotations

from collections.abc import Sequence

from invattn._files import write_json
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.run import check_output, library_versions, make_folder
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.reconstruction.cells import Cell, CellResult, finished_result, make_cells, store_result
from invattn.experiments.reconstruction.config import ReconstructionConfig as ReconstructionConfig
from invattn.experiments.reconstruction.config import Variant, named_variants
from invattn.experiments.reconstruction.record import ReconstructionRecord
from invattn.experiments.reconstruction.summary import summarise
from invattn.experiments.reconstruction.training import Workload, run_cell


def run(config: ReconstructionConfig, progress: Progress) -> ReconstructionRecord:
    """Run every attention kind in every recipe of a configuration and write the results.

    Writes ``results.json``, ``model/<attention>-<recipe>/`` and ``artifacts/<attention>-<recipe>.npz`` below
    ``config.output``, and keeps every finished cell below ``cells/``: the same command run again skips those.

    Args:
        config: The user's options.
        progress: Is told what goes on.

    Returns:
        The content of ``results.json``.

    Raises:
        DataError: If the data or the output cannot be used; one line that says what to do.
        OSError: If a file cannot be written; it names the file, and finished cells are kept.
        Interrupted: On Ctrl-C; the message says how to continue.

    References:
        Invertible Attention (arXiv 2106.09003), Sections 4.1 and F.1, Tables 2 and 5; the authors' released code.
    """
    return run_variants(config, named_variants(config), progress)


def run_variants(config: ReconstructionConfig, variants: Sequence[Variant], progress: Progress) -> ReconstructionRecord:
    """Run variants that need not have a name of their own, such as a recipe with one field changed.

    Args:
        config: The user's options; its attention and recipe are ignored.
        variants: The rows of the table; their names must differ.
        progress: Is told what goes on.

    Returns:
        The content of ``results.json``.

    Raises:
        DataError: As ``run``.
        OSError: As ``run``.
        Interrupted: As ``run``.
        ValueError: If two variants have one name.
    """
    if len({variant.name for variant in variants}) != len(variants):
        raise ValueError("two variants have the same attention and label; give each its own label.")
    check_output(config.output)
    data = _load(config)
    batch_size = min(config.chosen_batch_size(), len(data.train))
    cells = make_cells(variants, config=config, fingerprint=data.fingerprint, batch_size=batch_size)
    finished = {cell.name: finished_result(cell) for cell in cells}
    make_folder(config.output / "cells")
    work = Workload(config=config, train=data.train, test=data.test, batch_size=batch_size)
    try:
        results = {cell.name: _result(cell, finished[cell.name], work, progress) for cell in cells}
        record = _record(config, data, variants, cells, results, batch_size)
        write_json(config.output / "results.json", record.to_json())
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"interrupted: finished cells and the state of the training are in {config.output / 'cells'}. "
            "Run the same command with --resume to continue."
        ) from None
    return record


def _load(config: ReconstructionConfig) -> ImageData:
    request = ImageRequest(
        config.data,
        data_root=config.data_root,
        train_size=config.train_size,
        test_size=config.test_size,
        image_size=config.pixels(),
        seed=config.seed,
    )
    return load_reconstruction_data(request)


def _result(cell: Cell, finished: CellResult | None, work: Workload, progress: Progress) -> CellResult:
    if finished is not None:
        progress.message(f"{cell.name}: finished before, skipped")
        return finished
    result = run_cell(cell, work, progress)
    store_result(cell, result)
    if result.stopped_at is not None:
        progress.message(
            f"{cell.name}: the training loss was not finite at step {result.stopped_at}; the model of the step before "
            "was evaluated."
        )
    return result


def _record(
    config: ReconstructionConfig,
    data: ImageData,
    variants: Sequence[Variant],
    cells: Sequence[Cell],
    results: dict[str, CellResult],
    batch_size: int,
) -> ReconstructionRecord:
    notes = list(data.notes)
    if batch_size < config.chosen_batch_size():
        notes.append(f"only {batch_size} training images: the batch has {batch_size}, not {config.chosen_batch_size()}")
    return ReconstructionRecord(
        command=config.command(),
        seed=config.seed,
        versions=library_versions(),
        data={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train": len(data.train),
            "test": len(data.test),
            "native_size": data.native_size,
            "notes": notes,
        },
        settings=config.settings() | {"batch_size": batch_size},
        results=[
            summarise(
                variant,
                [results[cell.name] for cell in cells if cell.variant is variant],
                config=config,
                dataset=data.name,
            )
            for variant in variants
        ],
    )
