"""``invattn reconstruct``: train each attention kind, invert the test images, write results and the page."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from invattn import KINDS, RECIPES
from invattn.experiments.kit.options import IMAGE_SIZES
from invattn.experiments.kit.parser import OneLineParser, number_between, one_of, some_of, whole_number
from invattn.experiments.reconstruction.config import SOLVERS, ReconstructionConfig

if TYPE_CHECKING:
    from invattn.experiments.reconstruction.record import ReconstructionRecord, ReconstructionResult

_DEFAULTS = {option.name: option.default for option in fields(ReconstructionConfig)}


def reconstruct_parser() -> OneLineParser:
    """Return the parser of the command's options; their defaults are those of the experiment."""
    parser = OneLineParser(
        description="Train attention blocks on real images, invert them on test images, and write OUTPUT/results.json, "
        "the models and OUTPUT/report.html."
    )
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="read options from a YAML file")
    _add_data_options(parser)
    _add_model_options(parser)
    _add_training_options(parser)
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder to write (required)")
    parser.add_argument(
        "--resume", action=ActionYesNo(no_prefix="no-"), default=False, help="continue the run stopped in OUTPUT"
    )
    return parser


def _add_data_options(parser: OneLineParser) -> None:
    count = whole_number(1)
    size = one_of(IMAGE_SIZES, what="image size")
    _add(parser, "data", str, "NAME|DIR", "photos, cifar10, svhn, celeba or a folder of images")
    _add(parser, "data_root", str, "DIR", "where cifar10, svhn or celeba lie as published; without it: download")
    _add(parser, "train_size", count, "N", "training images")
    _add(parser, "test_size", count, "N", "test images")
    _add(parser, "image_size", size, "|".join(IMAGE_SIZES), "side in pixels")


def _add_model_options(parser: OneLineParser) -> None:
    kinds = some_of(KINDS, what="attention kind")
    recipes = some_of(RECIPES, what="recipe")
    solver = one_of(SOLVERS, what="solver")
    _add(parser, "attention", kinds, "KIND,...", f"of {', '.join(KINDS)}; all is the paper's four")
    _add(parser, "recipe", recipes, "RECIPE,...", f"of {', '.join(RECIPES)}; or all")
    _add(parser, "lipschitz", number_between(0.0, 1.0), "C", "bound of certified branches, coefficient of the others")
    _add(parser, "solver", solver, "NAME", ", ".join(SOLVERS))
    steps = "most steps of the solver; without a certificate picard, the default, makes exactly so many"
    _add(parser, "iterations", whole_number(1), "N", steps)


def _add_training_options(parser: OneLineParser) -> None:
    count = whole_number(1)
    _add(parser, "epochs", count, "N", "passes over the training images (default: 100; 1 at the original size)")
    _add(parser, "repeats", count, "N", "trainings with different seeds")
    _add(parser, "lr", number_between(0.0, math.inf), "RATE", "learning rate of Adam")
    _add(parser, "batch_size", count, "N", "images in a batch (default: 64; 1 at the original size)")
    _add(parser, "seed", whole_number(0), "N", "decides everything that is random")


def _add(parser: OneLineParser, name: str, kind: Callable[..., object], metavar: str, text: str) -> None:
    option = "--" + name.replace("_", "-")
    parser.add_argument(option, type=kind, default=_DEFAULTS[name], metavar=metavar, help=text)


def execute(options: Namespace) -> None:
    """Run the experiment, write the page, and print the results and the page's path.

    Args:
        options: The values of ``reconstruct_parser``.

    Raises:
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    from rich.console import Console

    from invattn.experiments.kit.progress import progress_for
    from invattn.experiments.kit.training.interruption import Interrupted
    from invattn.experiments.reconstruction.page.page import write_report
    from invattn.experiments.reconstruction.run import run

    values = {key: value for key, value in vars(options).items() if key not in ("config", "data_root", "output")}
    output = Path(options.output)
    config = ReconstructionConfig(
        **values, data_root=None if options.data_root is None else Path(options.data_root), output=output
    )
    try:
        record = run(config, progress=progress_for(Console(stderr=True)))
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from None
    page = write_report(output)
    show_results(record)
    print(f"page: {page.resolve()}")


def show_results(record: ReconstructionRecord) -> None:
    """Print the table of results and the notes on the data."""
    from rich.console import Console
    from rich.table import Table

    published = any(result.paper for result in record.results)
    table = Table(title=f"{record.data['name']}: {record.data['train']} training, {record.data['test']} test images")
    for heading in ("attention", "recipe"):
        table.add_column(heading, no_wrap=True)
    for heading in ("V-score", "converged", "MSE", "largest MSE", "evaluations of g", "bound"):
        table.add_column(heading, justify="right")
    if published:
        table.add_column("paper's V-score", justify="right")
    for result in record.results:
        table.add_row(*_cells(result), *([_published(result)] if published else []))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    for note in record.data.get("notes", ()):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _cells(result: ReconstructionResult) -> list[str]:
    metrics = result.metrics
    return [
        result.attention,
        result.recipe,
        f"{metrics.v_score:.1%}",
        f"{metrics.converged:.1%}",
        f"{metrics.mse:.3g}",
        f"{metrics.mse_max:.3g}",
        f"{metrics.evaluations_mean:.1f} (max {metrics.evaluations_max:.0f})",
        f"{result.certificate['bound']:.3f}" if result.certificate else "none",
    ]


def _published(result: ReconstructionResult) -> str:
    return f"{result.paper['v_score']:.1%}" if result.paper else "-"
