"""``invattn camouflage``: train, evaluate and predict camouflaged object detection."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from jsonargparse import Namespace

from invattn._errors import DataError, InvAttnError
from invattn.experiments.camouflage.options import evaluate_parser, predict_parser, train_parser
from invattn.experiments.camouflage.record import CamouflageRecord, MapMetrics
from invattn.experiments.kit.parser import OneLineParser

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
    from rich.table import Table

    table = Table(title="maps against masks")
    table.add_column("set", no_wrap=True)
    for heading in (*_COLUMNS.values(), "images"):
        table.add_column(heading, justify="right")
    for name, metrics in sets.items():
        table.add_row(name, *(f"{getattr(metrics, column):.4f}" for column in _COLUMNS), str(metrics.images))
    _print(table)


def show_results(record: CamouflageRecord) -> None:
    """Print S, F, E and MAE of every row on every test set, and the notes on the data."""
    from rich.console import Console
    from rich.table import Table

    for name, images in record.data["sets"].items():
        table = Table(
            title=f"{name}: {images} images; the mean training mask has S {record.data['mean_mask'][name]:.3f}"
        )
        for heading in ("attention", "recipe"):
            table.add_column(heading, no_wrap=True)
        for heading in ("seed", "S", "F mean", "E mean", "MAE", "inverse error", "bound", "seconds"):
            table.add_column(heading, justify="right")
        for row in record.rows:
            found = row.sets.get(name)
            scores = (found.s_measure, found.f_mean, found.e_mean, found.mae) if found else ()
            cells = [f"{value:.3f}" for value in scores] or ["stopped", "", "", ""]
            error = f"{row.inverse['error_max']:.2g}" if row.inverse else "-"
            bound = f"{row.certificate['bound']:.3f}" if row.certificate else "none"
            table.add_row(row.attention, row.recipe, str(row.seed), *cells, error, bound, f"{row.seconds:.0f}")
        _print(table)
    for note in record.data.get("notes", ()):
        Console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _print(table: object) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def camouflage_parser() -> OneLineParser:
    """Return the parser of the command, still without its actions."""
    return OneLineParser(description="Camouflaged object detection with invertible attention.")


def add_actions(parser: OneLineParser) -> None:
    """Add train, evaluate and predict to the parser, once it is a subcommand itself: jsonargparse wants that order."""
    commands = parser.add_subcommands(required=True, dest="action", metavar="ACTION")
    commands.add_subcommand("train", train_parser(), help="train networks and write results, models and a page")
    commands.add_subcommand("evaluate", evaluate_parser(), help="measure anybody's maps against masks")
    commands.add_subcommand("predict", predict_parser(), help="write the maps of a trained network")


def execute(options: Namespace) -> None:
    """Run the chosen action.

    Args:
        options: The values of ``camouflage_parser``.

    Raises:
        InvAttnError: If something expected went wrong, a loss that is not finite included; one line.
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    actions: dict[str, Callable[[Namespace], None]] = {"train": _train, "evaluate": _evaluate, "predict": _predict}
    actions[options.action](options[options.action])


def _train(options: Namespace) -> None:
    from rich.console import Console

    from invattn.experiments.camouflage.config import camouflage_config
    from invattn.experiments.camouflage.page.page import write_report
    from invattn.experiments.camouflage.run import follow_camouflage, run_camouflage
    from invattn.experiments.kit.progress import progress_for
    from invattn.experiments.kit.training.interruption import Interrupted

    given = {key: value for key, value in vars(options).items() if value is not None and key != "config"}
    given |= {"output": Path(options.output), "test": tuple(options.test or ())}
    try:
        config = camouflage_config(given)
    except ValueError as error:
        raise DataError(str(error)) from None
    progress = progress_for(Console(stderr=True))
    try:
        if config.machines().first_worker(os.environ).node:
            follow_camouflage(config, progress)
            print(f"done: the first machine writes {config.output}")
            return
        record = run_camouflage(config, progress)
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from None
    page = write_report(config.output)
    show_results(record)
    print(f"page: {page.resolve()}")
    stopped = [row for row in record.rows if row.extra.get("stopped_at") is not None]
    if stopped:
        first = stopped[0]
        raise InvAttnError(
            f"{len(stopped)} of {len(record.rows)} trainings stopped early. {first.variant}, seed {first.seed}: "
            f"{first.extra['stopped']}. The last saved states stay in {config.output / 'cells'}; try a smaller --lr."
        )


def _evaluate(options: Namespace) -> None:
    from rich.console import Console

    from invattn.experiments.camouflage.evaluation import evaluate_maps
    from invattn.experiments.kit.progress import progress_for

    sets = evaluate_maps(
        Path(options.predictions),
        Path(options.masks),
        name=options.name,
        output=Path(options.output),
        progress=progress_for(Console(stderr=True)),
        images=None if options.images is None else Path(options.images),
    )
    show_sets(sets)
    print(f"results: {(Path(options.output) / 'results.json').resolve()}")
    print(f"page: {(Path(options.output) / 'maps.html').resolve()}")


def _predict(options: Namespace) -> None:
    from rich.console import Console

    from invattn.experiments.camouflage.evaluation import predict_folder
    from invattn.experiments.kit.progress import progress_for

    output = Path(options.output)
    progress = progress_for(Console(stderr=True))
    count = predict_folder(Path(options.model), Path(options.images), output=output, progress=progress)
    print(f"maps: {count} in {output.resolve()}")
