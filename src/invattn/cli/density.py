"""``invattn density``: train, evaluate and sample normalizing flows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from invattn import RECIPES
from invattn.cli.parser import OneLineParser
from invattn.cli.values import number_between, number_from, one_of, some_of, whole_number
from invattn.experiments.density_config import (
    ACCELERATORS,
    DATASETS,
    OPTIMIZERS,
    PRECISIONS,
    STRATEGIES,
    DensityConfig,
)
from invattn.flows import TOKEN_MIXERS

if TYPE_CHECKING:
    from rich.console import Console

    from invattn.records import DensityRecord, DensityResult

_DEFAULTS = {option.name: option.default for option in fields(DensityConfig)}


def density_parser() -> OneLineParser:
    """Return the parser of the command, still without its actions."""
    return OneLineParser(description="Normalizing flows with certified attention.")


def add_actions(parser: OneLineParser) -> None:
    """Add train, evaluate and sample to the parser, once it is a subcommand itself: jsonargparse wants that order."""
    commands = parser.add_subcommands(required=True, dest="action", metavar="ACTION")
    commands.add_subcommand("train", train_parser(), help="train flows and write results, models and a page")
    commands.add_subcommand("evaluate", evaluate_parser(), help="likelihood of a stored flow on test samples")
    commands.add_subcommand("sample", sample_parser(), help="draw samples of a stored flow as a picture")


def train_parser() -> OneLineParser:
    """Return the parser of ``density train``; the defaults are those of the experiment."""
    parser = OneLineParser(
        description="Train a flow for each attention by maximum likelihood, measure it on test samples, and write "
        "OUTPUT/results.json, the models and OUTPUT/report.html."
    )
    count = whole_number(1)
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="read options from a YAML file")
    _add(parser, "data", one_of(DATASETS, what="data set"), "NAME", "sets: points around random centres, generated")
    mixers = some_of(TOKEN_MIXERS, what="attention of a token flow")
    _add(parser, "attention", mixers, "KIND,...", f"of {', '.join(TOKEN_MIXERS)}; or all")
    _add(parser, "recipe", some_of(RECIPES, what="recipe"), "RECIPE,...", f"of {', '.join(RECIPES)}; or all")
    _add(parser, "blocks", count, "N", "how often attention and MLP are repeated")
    _add(parser, "attention_layers", count, "N", "attention blocks before each MLP")
    _add(parser, "hidden_channels", count, "N", "width of both hidden layers of each MLP")
    _add(parser, "lipschitz", number_between(0.0, 1.0), "C", "bound of certified branches, coefficient of the others")
    _add(parser, "steps", count, "N", "training steps")
    _add(parser, "batch_size", count, "N", "samples in a batch")
    _add(parser, "optimizer", one_of(OPTIMIZERS, what="optimizer"), "NAME", "adam or adamax")
    _add(parser, "lr", number_between(0.0, math.inf), "RATE", "largest learning rate")
    _add(parser, "warm_up", whole_number(0), "N", "steps in which it rises; a cosine takes it to 0")
    _add(parser, "clip", number_between(0.0, math.inf), "NORM", "longer gradients are scaled to this norm")
    _add(parser, "averaging", number_from(0.0, 1.0), "D", "decay of the average of weights that is evaluated")
    _add(parser, "precision", one_of(PRECISIONS, what="precision"), "NAME", "fp32, or bf16 for matrix products")
    _add(parser, "terms", count, "N", "terms of the log-determinant's power series in training")
    _add(parser, "test_size", whole_number(2), "N", "test samples")
    _add(parser, "repeats", count, "N", "trainings of each variant with different seeds")
    _add(parser, "seed", whole_number(0), "N", "decides everything that is random")
    _add(
        parser, "checkpoint_minutes", number_between(0.0, math.inf), "M", "time between saves of an unfinished training"
    )
    _add(parser, "log_every", whole_number(0), "N", "steps between samples in OUTPUT/tensorboard; 0 writes no log")
    _add(parser, "accelerator", one_of(ACCELERATORS, what="accelerator"), "NAME", "cpu, gpu, or auto")
    _add(parser, "devices", count, "N", "processes, or GPUs, of each machine that share every batch")
    _add(parser, "nodes", count, "N", "machines; start the command on each with NODE_RANK, MASTER_ADDR, MASTER_PORT")
    _add(parser, "strategy", one_of(STRATEGIES, what="strategy"), "NAME", "ddp: each process has the whole model")
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder to write (required)")
    parser.add_argument(
        "--resume", action=ActionYesNo(no_prefix="no-"), default=False, help="continue the run stopped in OUTPUT"
    )
    return parser


def evaluate_parser() -> OneLineParser:
    """Return the parser of ``density evaluate``."""
    parser = OneLineParser(description="Measure the likelihood of MODEL on test samples, with exact log-determinants.")
    _add_model(parser)
    parser.add_argument("--test-size", type=whole_number(2), default=500, metavar="N", help="samples")
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="decides the test samples")
    parser.add_argument(
        "--unbiased", action=ActionYesNo(no_prefix="no-"), default=False, help="measure by the unbiased estimator too"
    )
    return parser


def sample_parser() -> OneLineParser:
    """Return the parser of ``density sample``."""
    parser = OneLineParser(description="Draw samples of MODEL and write OUTPUT/samples.png and OUTPUT/samples.npy.")
    _add_model(parser)
    parser.add_argument("--count", type=whole_number(1), default=12, metavar="N", help="how many samples")
    parser.add_argument(
        "--temperature", type=number_between(0.0, math.inf), default=1.0, metavar="T", help="spread of the base"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="decides the samples")
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder to write (required)")
    return parser


def execute(options: Namespace) -> None:
    """Run the chosen action.

    Args:
        options: The values of ``density_parser``.

    Raises:
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    actions: dict[str, Callable[[Namespace], None]] = {"train": _train, "evaluate": _evaluate, "sample": _sample}
    actions[options.action](options[options.action])


def _train(options: Namespace) -> None:
    from rich.console import Console

    from invattn.cli.progress import progress_for
    from invattn.experiments.density import follow_density, run_density
    from invattn.report import write_report
    from invattn.training.interruption import Interrupted

    values = {key: value for key, value in vars(options).items() if key not in ("config", "output")}
    output = Path(options.output)
    config, progress = DensityConfig(**values, output=output), progress_for(Console(stderr=True))
    try:
        if config.machines().first_worker(os.environ).node:
            follow_density(config, progress)
            print(f"done: the first machine writes {output}")
            return
        record = run_density(config, progress)
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from None
    page = write_report(output)
    show_results(record)
    print(f"page: {page.resolve()}")


def _evaluate(options: Namespace) -> None:
    from rich.console import Console

    from invattn.cli.progress import progress_for
    from invattn.experiments.density_model import evaluate_model

    found = evaluate_model(
        Path(options.model),
        test_size=options.test_size,
        seed=options.seed,
        unbiased=options.unbiased,
        progress=progress_for(Console(stderr=True)),
    )
    metrics = found.result.metrics
    print(f"{options.model}: {options.test_size} test samples, seed {options.seed}")
    if found.result.refused is not None:
        print(f"no likelihood: {found.result.refused}")
    else:
        print(
            f"nats per dimension: {metrics.nats_per_dim:.4f} +- {metrics.standard_error:.4f} (exact log-determinants)"
        )
    if found.unbiased is not None:
        print(
            f"unbiased estimator: {found.unbiased:.4f}, its probes add a standard error of {found.unbiased_error:.4f}"
        )
    print(f"median {metrics.median:.4f}, outliers {metrics.outliers}")
    print(f"largest inverse error {metrics.inverse_error_max:.2g}, spectral radius {metrics.spectral_radius_max:.3f}")


def _sample(options: Namespace) -> None:
    from invattn.experiments.density_model import sample_model
    from invattn.experiments.output_folder import check_output
    from invattn.report import write_samples

    output = Path(options.output)
    check_output(output)
    samples = sample_model(Path(options.model), count=options.count, temperature=options.temperature, seed=options.seed)
    print(f"picture: {write_samples(output, samples.numpy()).resolve()}")


def show_results(record: DensityRecord) -> None:
    """Print the table of results and the notes on the data."""
    from rich.console import Console
    from rich.table import Table

    data = record.data
    table = Table(title=f"{data['name']}: {data['train']} training, {data['test']} test samples")
    table.add_column("variant", no_wrap=True)
    for heading in ("seed", "nats/dim", "median", "outliers", "inverse error", "radius", "bound", "CPU s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in record.results:
        table.add_row(*_cells(result))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    _notes(console, record)


def _notes(console: Console, record: DensityRecord) -> None:
    refused = [
        f"{result.variant}: no likelihood, because {result.refused}" for result in record.results if result.refused
    ]
    for note in (*record.data.get("notes", ()), *refused):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _cells(result: DensityResult) -> list[str]:
    metrics = result.metrics
    value = "refused" if metrics.nats_per_dim is None else f"{metrics.nats_per_dim:.3f} ± {metrics.standard_error:.3f}"
    return [
        result.variant,
        str(result.seed),
        value,
        f"{metrics.median:.3f}",
        str(metrics.outliers),
        f"{metrics.inverse_error_max:.1g}",
        f"{metrics.spectral_radius_max:.3f}",
        f"{result.certificate['bound']:.3f}" if result.certificate else "none",
        f"{result.cpu_seconds:.1f}",
    ]


def _add(parser: OneLineParser, name: str, kind: Callable[..., object], metavar: str, text: str) -> None:
    parser.add_argument("--" + name.replace("_", "-"), type=kind, default=_DEFAULTS[name], metavar=metavar, help=text)


def _add_model(parser: OneLineParser) -> None:
    parser.add_argument("model", type=str, metavar="MODEL", help="a model folder: OUTPUT/model/VARIANT of a run")
