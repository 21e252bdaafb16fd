"""Camouflaged object detection: train a network with each attention module and measure its maps."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from invattn.experiments.camouflage.config import CamouflageConfig as CamouflageConfig
from invattn.experiments.camouflage.data import CamouflageData, open_camouflage_data
from invattn.experiments.camouflage.measure import mean_mask, measure_maps, measure_network
from invattn.experiments.camouflage.record import CamouflageRecord, CamouflageRow
from invattn.experiments.camouflage.training import CamouflageCell, Pretraining, TrainedNetwork, train_network
from invattn.experiments.kit.cells import follow_cells, run_cells
from invattn.experiments.kit.output import check_output, library_versions
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.companions import on_processes
from invattn.hub import save_model


def run_camouflage(config: CamouflageConfig, progress: Progress) -> CamouflageRecord:
    """Train and measure every row of a configuration; write and return what ``results.json`` holds.

    Writes ``results.json``, and for each first repeat ``model/<attention>-<recipe>/`` and
    ``artifacts/<attention>-<recipe>.npz``, below ``config.output``; finished cells stay below ``cells/`` and are
    skipped when the same command runs again.

    Raises:
        DataError: If the data cannot be used, or the output or what it holds; one line that says what to do.
        OSError: If a file cannot be written.
        Interrupted: On Ctrl-C; the message says how to continue.

    References:
        Zha et al. 2021, Sec. 4.3, F.3, Table 4, Fig. 6, 7, 8.
    """
    check_output(config.output)
    config.machines().check(batch_size=config.batch_size)
    data = open_camouflage_data(config)
    cells = make_cells(config, data)
    return run_cells(
        cells,
        progress,
        run=_row,
        record=partial(_record, cells),
        prepare=lambda: Pretraining(config, data, cells[0].fingerprints).run(progress),
        workers=config.workers,
    )


def follow_camouflage(config: CamouflageConfig, progress: Progress) -> None:
    """Do the part of a further machine in a run on several, as :func:`~invattn.experiments.kit.cells.follow_cells`."""
    config.machines().check(batch_size=config.batch_size)
    cells = make_cells(config, open_camouflage_data(config))
    follow_cells(cells, progress, task=lambda cell: partial(train_network, cell), machines=config.machines())


def make_cells(config: CamouflageConfig, data: CamouflageData) -> list[CamouflageCell]:
    """Return every training of a run, repeats innermost."""
    fingerprints = data.fingerprints()
    return [
        CamouflageCell(
            config=config, data=data, fingerprints=fingerprints, attention=attention, recipe=recipe, repeat=repeat
        )
        for attention, recipe in config.variants()
        for repeat in range(config.repeats)
    ]


def _row(cell: CamouflageCell, progress: Progress) -> CamouflageRow:
    machines = cell.config.machines()
    trained = on_processes(partial(train_network, cell), machines, progress)
    if trained.outcome.stopped_at is not None:
        row = _unmeasured(cell, trained)
        cell.leave(row, row.extra["stopped"], progress)
        return row
    network = trained.network.to("cuda" if machines.on_gpu else "cpu")
    measured = measure_network(cell, network, progress)
    if cell.repeat == 0:
        save_model(network.cpu(), cell.model_folder, config=cell.model_config)
        cell.write_figures(measured.arrays(trained.outcome.losses))
    row = _unmeasured(cell, trained, sets=measured.metrics(), inverse=measured.inverse, s_each=measured.s_each())
    cell.finish(row)
    return row


def _unmeasured(cell: CamouflageCell, trained: TrainedNetwork, *, s_each: Any = None, **measured: Any) -> CamouflageRow:
    """Return the row of a trained network with what was measured of it, if anything."""
    outcome = trained.outcome
    extra: dict[str, Any] = {"stopped_at": outcome.stopped_at, "repeat": cell.repeat}
    if outcome.stop_reason is not None:
        extra["stopped"] = outcome.stop_reason
    if s_each is not None:
        extra["s_each"] = s_each
    return CamouflageRow(
        attention=cell.attention,
        recipe=cell.recipe,
        seed=cell.seed,
        parameters=trained.parameters,
        seconds=outcome.seconds,
        peak_memory=trained.peak_memory,
        certificate=trained.certificate,
        train_loss=outcome.losses,
        extra=extra,
        **({"sets": {}} | measured),
    )


def _record(cells: list[CamouflageCell], rows: list[CamouflageRow]) -> CamouflageRecord:
    config, data = cells[0].config, cells[0].data
    mean = mean_mask(data.train, side=config.image_size).numpy()
    baseline = {part.name: measure_maps(lambda _: mean, part, on_image=lambda: None) for part in data.test}
    return CamouflageRecord(
        command=config.command(),
        seed=config.seed,
        versions=library_versions("torchmetrics", "pysodmetrics", "transformers"),
        data={
            "name": data.train.name,
            "fingerprint": cells[0].fingerprints["train"],
            "train": len(data.train),
            "sets": {part.name: len(part) for part in data.test},
            "mean_mask": {name: scores.metrics.s_measure for name, scores in baseline.items()},
            "notes": list(data.notes),
        },
        settings=config.settings() | {"torch_threads": config.threads(torch.get_num_threads())},
        rows=rows,
    )
