"""``invattn reconstruct``: train each attention kind, invert the test images, write results and the page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from invattn import KINDS, RECIPES
from invattn.cli.parser import OneLineParser
from invattn.cli.values import number_between, one_of, output_folder, some_of, whole_number

if TYPE_CHECKING:
    from invattn.records import ReconstructionRecord

SOLVERS = ("default", "picard", "anderson", "adaptive")
IMAGE_SIZES = ("32", "original")


def reconstruct_parser() -> OneLineParser:
    """Return the parser of the command's options."""
    parser = OneLineParser(
        description="Train attention blocks on real images, invert them on test images, and write OUTPUT/results.json, "
        "the models and OUTPUT/report.html."
    )
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="read options from a YAML file")
    _add_data_options(parser)
    _add_model_options(parser)
    _add_training_options(parser)
    parser.add_argument("--output", type=output_folder, required=True, metavar="DIR", help="folder to write (required)")
    resume = ActionYesNo(no_prefix="no-")
    parser.add_argument("--resume", action=resume, default=False, help="continue the run that was stopped in OUTPUT")
    return parser


def _add_data_options(parser: OneLineParser) -> None:
    parser.add_argument(
        "--data", type=str, default="photos", metavar="NAME|DIR", help="photos, cifar10, svhn, celeba or a folder"
    )
    parser.add_argument(
        "--data-root", type=str, default=None, metavar="DIR", help="cifar10, svhn or celeba as their publishers ship it"
    )
    parser.add_argument("--train-size", type=whole_number(1), default=1000, metavar="N", help="training images")
    parser.add_argument("--test-size", type=whole_number(1), default=1000, metavar="N", help="test images")
    size = one_of(IMAGE_SIZES, what="image size")
    parser.add_argument("--image-size", type=size, default="32", metavar="32|original", help="side in pixels")


def _add_model_options(parser: OneLineParser) -> None:
    kind = one_of((*KINDS, "all"), what="attention kind")
    parser.add_argument("--attention", type=kind, default="all", metavar="KIND", help=f"{', '.join(KINDS)} or all")
    recipes = some_of(RECIPES, what="recipe")
    parser.add_argument(
        "--recipe", type=recipes, default="certified", metavar="RECIPE,...", help=f"of {', '.join(RECIPES)}; or all"
    )
    share = number_between(0.0, 1.0)
    parser.add_argument("--lipschitz", type=share, default=0.9, metavar="C", help="Lipschitz constant of the branch")
    solver = one_of(SOLVERS, what="solver")
    parser.add_argument("--solver", type=solver, default="default", metavar="NAME", help=", ".join(SOLVERS))
    parser.add_argument(
        "--iterations",
        type=whole_number(1),
        default=None,
        metavar="N",
        help="steps of the inverse in recipes without a certificate (default: 100 for paper, 50 for released)",
    )


def _add_training_options(parser: OneLineParser) -> None:
    positive = number_between(0.0, math.inf)
    parser.add_argument("--epochs", type=whole_number(1), default=100, metavar="N", help="passes over the images")
    parser.add_argument("--repeats", type=whole_number(1), default=3, metavar="N", help="runs with different seeds")
    parser.add_argument("--lr", type=positive, default=0.003, metavar="RATE", help="learning rate of Adam")
    parser.add_argument("--batch-size", type=whole_number(1), default=64, metavar="N", help="images in a batch")
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="decides everything random")


def execute(options: Namespace) -> None:
    """Run the experiment, write the page, and print the results and the page's path.

    Args:
        options: The values of ``reconstruct_parser``.

    Raises:
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    from rich.console import Console

    from invattn.cli.progress import progress_for
    from invattn.experiments.reconstruction import ReconstructionConfig, run
    from invattn.report import write_report
    from invattn.training.interruption import Interrupted

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

    table = Table(title=f"{record.data['name']}: {record.data['train']} training, {record.data['test']} test images")
    for heading in ("attention", "recipe"):
        table.add_column(heading, no_wrap=True)
    for heading in ("V-score", "converged", "MSE", "largest MSE", "evaluations of g", "bound", "paper's V-score"):
        table.add_column(heading, justify="right")
    for result in record.results:
        metrics = result.metrics
        table.add_row(
            result.attention,
            result.recipe,
            f"{metrics.v_score:.1%}",
            f"{metrics.converged:.1%}",
            f"{metrics.mse:.3g}",
            f"{metrics.mse_max:.3g}",
            f"{metrics.evaluations_mean:.1f} (max {metrics.evaluations_max:.0f})",
            f"{result.certificate['bound']:.3f}" if result.certificate else "none",
            f"{result.paper['v_score']:.1%}" if result.paper else "-",
        )
    console = Console()
    console.print(table, width=max(console.width, 120))
    for note in record.data.get("notes", ()):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
