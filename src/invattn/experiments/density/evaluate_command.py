"""``invattn density evaluate``: the likelihood that a stored flow gives test samples, and its inverse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from invattn.experiments.density.options import data_name
from invattn.experiments.kit.parser import OneLineParser, whole_number

if TYPE_CHECKING:
    from invattn.experiments.density.evaluation import ModelEvaluation
    from invattn.experiments.density.measure import ImportanceBound


def evaluate_parser() -> OneLineParser:
    """Return the parser of ``density evaluate``."""
    parser = OneLineParser(
        description="Measure the likelihood of MODEL on test samples, with exact log-determinants up to 256 dimensions "
        "and without bias above, and its inverse on them, on other data, on noise and far away."
    )
    add_model(parser)
    names = "other data than the flow was trained on, of the same shape"
    parser.add_argument("--data", type=data_name, default=None, metavar="NAME|DIR", help=names)
    parser.add_argument("--data-root", type=str, default=None, metavar="DIR", help="where cifar10, svhn or celeba lie")
    size = "test samples (default: as many as the training's table)"
    parser.add_argument("--test-size", type=whole_number(2), default=None, metavar="N", help=size)
    seed = "decides generated samples, noise and probes (default: that of the training)"
    parser.add_argument("--seed", type=whole_number(0), default=None, metavar="N", help=seed)
    flag = ActionYesNo(no_prefix="no-")
    unbiased = "measure by the unbiased estimator too, where log-determinants are exact"
    parser.add_argument("--unbiased", action=flag, default=False, help=unbiased)
    draws = "images: draws of the noise for the bound of the grey levels' bits: 1: evidence lower bound, 0: none"
    parser.add_argument("--importance-samples", type=whole_number(0), default=0, metavar="K", help=draws)
    stress = "inputs of each kind on which the inverse is tried; 0: only test samples"
    parser.add_argument("--stress", type=whole_number(0), default=100, metavar="N", help=stress)
    parser.add_argument("--output", type=str, default=None, metavar="DIR", help="folder for evaluation.json")
    return parser


def add_model(parser: OneLineParser) -> None:
    """Add the argument that names a model folder."""
    parser.add_argument("model", type=str, metavar="MODEL", help="a model folder: OUTPUT/model/VARIANT of a run")


def evaluate(options: Namespace) -> None:
    """Evaluate the model and print what was found."""
    from rich.console import Console

    from invattn.experiments.density.evaluation import EVALUATION_FILE, EvaluateOptions, evaluate_model
    from invattn.experiments.kit.progress import progress_for

    paths = {name: getattr(options, name) for name in ("data_root", "output")}
    found = evaluate_model(
        EvaluateOptions(
            model=Path(options.model),
            data=options.data,
            test_size=options.test_size,
            seed=options.seed,
            unbiased=options.unbiased,
            importance_samples=options.importance_samples,
            stress=options.stress,
            **{name: None if path is None else Path(path) for name, path in paths.items()},
        ),
        progress_for(Console(stderr=True)),
    )
    print(f"{options.model}: {found.data.test_size} test samples of {found.data.name}, seed {found.result.seed}")
    for line in _likelihood_lines(found):
        print(line)
    _show_inverses(found)
    if options.output is not None:
        print(f"written: {(Path(options.output) / EVALUATION_FILE).resolve()}")


def _likelihood_lines(found: ModelEvaluation) -> list[str]:
    metrics, unit = found.result.metrics, f"{found.result.metrics.unit} per dimension"
    how = (
        "exact log-determinants"
        if found.exact
        else f"unbiased estimator; its probes add a standard error of {metrics.estimator_error:.4f}"
    )
    if found.result.refused is not None:
        lines = [f"no likelihood: {found.result.refused}"]
    else:
        lines = [f"{unit}: {metrics.per_dim:.4f} +- {metrics.standard_error:.4f} ({how})"]
    if found.data.learned and found.result.refused is None:
        lines[0] += ", evidence lower bound with learned noise"
    if found.unbiased is not None:
        added = f"its probes add a standard error of {found.unbiased_error:.4f}"
        lines.append(f"unbiased estimator: {found.unbiased:.4f}, {added}")
    if found.bound is not None:
        lines.append(_bound_line(found.bound))
    lines.append(f"median {metrics.median:.4f}, outliers {metrics.outliers}")
    inverse = f"largest inverse error {metrics.inverse_error_max:.2g}"
    return [*lines, f"{inverse}, spectral radius {metrics.spectral_radius_max:.3f}"]


def _bound_line(bound: ImportanceBound) -> str:
    name = "evidence lower bound, 1 draw" if bound.samples == 1 else f"importance-weighted bound, {bound.samples} draws"
    line = f"{name}: {bound.bits_per_dim:.4f} +- {bound.standard_error:.4f} bits per dimension"
    if bound.probe_bias:
        line += f" (random probes make it too low by up to about {bound.probe_bias:.1g})"
    return line


def _show_inverses(found: ModelEvaluation) -> None:
    """Print the table of inverse errors on test samples and elsewhere."""
    from rich.console import Console
    from rich.table import Table

    if not found.inverses:
        return
    table = Table(title="inverse(f(x)) for other inputs x")
    table.add_column("inputs")
    for heading in ("converged", "largest error", "relative to x"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in found.inverses:
        share = f"{entry.converged} of {entry.count}"
        table.add_row(entry.name, share, f"{entry.error_max:.2g}", f"{entry.relative_max:.2g}")
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
