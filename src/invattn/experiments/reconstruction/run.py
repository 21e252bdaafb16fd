"""The reconstruction experiment: train on a random target, send test images through the block and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from invattn.experiments.kit.cells import run_cells
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data
from invattn.experiments.kit.output import check_output, library_versions
from invattn.experiments.kit.progress import Progress
from invattn.experiments.reconstruction.cells import CellResult, ReconstructionCell, summarise
from invattn.experiments.reconstruction.config import ReconstructionConfig as ReconstructionConfig
from invattn.experiments.reconstruction.config import Variant, named_variants
from invattn.experiments.reconstruction.record import ReconstructionRecord
from invattn.experiments.reconstruction.training import run_cell


def run(config: ReconstructionConfig, progress: Progress) -> ReconstructionRecord:
    """Run every attention kind in every recipe of a configuration; write and return what ``results.json`` holds.

    Writes ``results.json``, ``model/<attention>-<recipe>/`` and ``artifacts/<attention>-<recipe>.npz`` below
    ``config.output``, and keeps every finished cell below ``cells/``: the same command run again skips those.

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
    data = load_reconstruction_data(
        ImageRequest(
            config.data,
            data_root=config.data_root,
            train_size=config.train_size,
            test_size=config.test_size,
            image_size=config.pixels(),
            seed=config.seed,
        )
    )
    cells = make_cells(config, data, variants)
    return run_cells(cells, progress, run=run_cell, record=partial(_record, cells))


def make_cells(config: ReconstructionConfig, data: ImageData, variants: Sequence[Variant]) -> list[ReconstructionCell]:
    """Return every training of a run, repeats innermost."""
    return [
        ReconstructionCell(
            config=config,
            data=data,
            attention=variant.attention,
            recipe=variant.label,
            form=variant.recipe,
            repeat=repeat,
        )
        for variant in variants
        for repeat in range(config.repeats)
    ]


def _record(cells: Sequence[ReconstructionCell], results: Sequence[CellResult]) -> ReconstructionRecord:
    config, data, batch_size = cells[0].config, cells[0].data, cells[0].batch_size
    notes = list(data.notes)
    if batch_size < config.chosen_batch_size():
        notes.append(f"only {batch_size} training images: the batch has {batch_size}, not {config.chosen_batch_size()}")
    repeats = range(0, len(cells), config.repeats)
    return ReconstructionRecord(
        command=config.command(),
        seed=config.seed,
        versions=library_versions("torchmetrics"),
        data={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train": len(data.train),
            "test": len(data.test),
            "native_size": data.native_size,
            "notes": notes,
        },
        settings=config.settings() | {"batch_size": batch_size},
        results=[summarise(cells[first], results[first : first + config.repeats]) for first in repeats],
    )
