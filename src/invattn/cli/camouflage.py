"""``invattn camouflage``: train, evaluate and predict camouflaged object detection."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jsonargparse import Namespace

from invattn._errors import DataError, InvAttnError
from invattn.cli.camouflage_options import evaluate_parser, predict_parser, train_parser
from invattn.cli.camouflage_tables import show_more, show_results, show_sets
from invattn.cli.parser import OneLineParser


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

    from invattn.cli.progress import progress_for
    from invattn.experiments.camouflage import follow_camouflage, run_camouflage
    from invattn.experiments.camouflage_config import camouflage_config
    from invattn.report import write_report
    from invattn.training.interruption import Interrupted

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

    from invattn.cli.progress import progress_for
    from invattn.experiments.camouflage_evaluation import evaluate_maps

    sets = evaluate_maps(
        Path(options.predictions),
        Path(options.masks),
        name=options.name,
        output=Path(options.output),
        progress=progress_for(Console(stderr=True)),
        all_metrics=options.all_metrics,
        images=None if options.images is None else Path(options.images),
    )
    show_sets(sets)
    show_more(sets)
    print(f"results: {(Path(options.output) / 'results.json').resolve()}")
    print(f"page: {(Path(options.output) / 'maps.html').resolve()}")


def _predict(options: Namespace) -> None:
    from rich.console import Console

    from invattn.cli.progress import progress_for
    from invattn.experiments.camouflage_evaluation import predict_folder

    output = Path(options.output)
    progress = progress_for(Console(stderr=True))
    count = predict_folder(Path(options.model), Path(options.images), output=output, progress=progress)
    print(f"maps: {count} in {output.resolve()}")
