"""``invattn camouflage``: train, evaluate and predict camouflaged object detection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from invattn.experiments.camouflage.config import CamouflageConfig, camouflage_config
from invattn.experiments.camouflage.record import CamouflageRecord, CamouflageRow, MapMetrics
from invattn.experiments.kit.options import ModelFolder
from invattn.experiments.kit.parser import Command, CommandGroup


def train(config: CamouflageConfig) -> None:
    """Train the rows, write the page, and print the results and the page's path.

    Raises:
        InvAttnError: If something expected went wrong, a loss that is not finite included; one line.
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    from invattn.experiments.camouflage.page.page import write_report
    from invattn.experiments.camouflage.run import follow_camouflage, run_camouflage
    from invattn.experiments.kit.terminal import progress_shown, refuse_stopped, show_path

    with progress_shown() as progress:
        if config.machines().first_worker(os.environ).node:
            follow_camouflage(config, progress)
            print(f"done: the first machine writes {config.output}")
            return
        record = run_camouflage(config, progress)
    page = write_report(config.output)
    show_results(record)
    show_path("page", page)
    stopped = [row for row in record.rows if row.extra.get("stopped_at") is not None]
    reasons = [f"{row.variant}, seed {row.seed}: {row.extra['stopped']}" for row in stopped]
    refuse_stopped(reasons, trainings=len(record.rows), output=config.output, remedy="--lr")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of ``invattn camouflage evaluate``.

    Attributes:
        predictions: The maps.
        masks: The true masks.
        name: Of a single set (default: its folder's).
        output: Where results.json and the page maps.html go.
        images: The images, for the page.
    """

    predictions: Path
    masks: Path
    name: Annotated[str | None, "NAME"] = None
    output: Path = Path(".")
    images: Path | None = None


def evaluate(options: EvaluateOptions) -> None:
    """Measure maps, and print what was found and where it was written."""
    from invattn.experiments.camouflage.evaluation import evaluate_maps
    from invattn.experiments.kit.terminal import progress_shown, show_path

    with progress_shown() as progress:
        sets = evaluate_maps(
            options.predictions,
            options.masks,
            name=options.name,
            output=options.output,
            progress=progress,
            images=options.images,
        )
    show_sets(sets)
    show_path("results", options.output / "results.json")
    show_path("page", options.output / "maps.html")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of ``invattn camouflage predict``.

    Attributes:
        model: A model folder: OUTPUT/model/VARIANT of a run.
        images: Folder of images.
        output: Folder to write.
    """

    model: ModelFolder
    images: Path
    output: Path


def predict(options: PredictOptions) -> None:
    """Write the maps, and print how many."""
    from invattn.experiments.camouflage.evaluation import predict_folder
    from invattn.experiments.kit.terminal import progress_shown

    with progress_shown() as progress:
        count = predict_folder(options.model, options.images, output=options.output, progress=progress)
    print(f"maps: {count} in {options.output.resolve()}")


TRAIN = Command(
    name="train",
    summary="train networks and write results, models and a page",
    description="Train the camouflage network with each attention module, measure its maps on every test set, and "
    "write OUTPUT/results.json, the models and OUTPUT/report.html.",
    epilog="Options that are not given are the paper's (352 pixels, ResNet-50, Adam with rate 2.5e-5, batch 6, 30 "
    "epochs), or with --quick those of a small network at 96 pixels.",
    options=CamouflageConfig,
    build=camouflage_config,
    fixed=("data",),
    run=train,
    config_file=True,
)
EVALUATE = Command(
    name="evaluate",
    summary="measure anybody's maps against masks",
    description="Measure predicted maps of any size against masks: 8-bit images, paired by their name without the "
    "ending. A folder of folders is several sets.",
    options=EvaluateOptions,
    run=evaluate,
)
PREDICT = Command(
    name="predict",
    summary="write the maps of a trained network",
    description="Write the map of every image of a folder as an 8-bit PNG of the image's size.",
    options=PredictOptions,
    run=predict,
)
COMMAND = CommandGroup(
    name="camouflage",
    summary="find camouflaged objects with each attention module",
    description="Camouflaged object detection with invertible attention.",
    actions=(TRAIN, EVALUATE, PREDICT),
)

_COLUMNS = {
    "s_measure": "S",
    "f_mean": "F mean",
    "f_max": "F max",
    "f_adaptive": "F adp",
    "f_weighted": "F weighted",
    "e_mean": "E mean",
    "e_max": "E max",
    "e_adaptive": "E adp",
    "mae": "MAE",
}


def show_sets(sets: Mapping[str, MapMetrics]) -> None:
    """Print what was measured of each set."""
    from invattn.experiments.kit.terminal import show_table

    rows = [
        (name, *(f"{getattr(metrics, column):.4f}" for column in _COLUMNS), str(metrics.images))
        for name, metrics in sets.items()
    ]
    show_table("maps against masks", ("set",), (*_COLUMNS.values(), "images"), rows)


def show_results(record: CamouflageRecord) -> None:
    """Print S, F, E and MAE of every row on every test set, and the notes on the data."""
    from invattn.experiments.kit.terminal import show_notes, show_table

    for name, images in record.data["sets"].items():
        show_table(
            f"{name}: {images} images; the mean training mask has S {record.data['mean_mask'][name]:.3f}",
            ("attention", "recipe"),
            ("seed", "S", "F mean", "E mean", "MAE", "inverse error", "bound", "seconds"),
            [_cells(row, row.sets.get(name)) for row in record.rows],
        )
    show_notes(record.data.get("notes", ()))


def _cells(row: CamouflageRow, found: MapMetrics | None) -> list[str]:
    scores = (found.s_measure, found.f_mean, found.e_mean, found.mae) if found else ()
    cells = [f"{value:.3f}" for value in scores] or ["stopped", "", "", ""]
    error = f"{row.inverse['error_max']:.2g}" if row.inverse else "-"
    bound = f"{row.certificate['bound']:.3f}" if row.certificate else "none"
    return [row.attention, row.recipe, str(row.seed), *cells, error, bound, f"{row.seconds:.0f}"]
