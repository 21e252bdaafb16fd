"""``invattn density``: train, evaluate and sample normalizing flows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace
from torch import Tensor

from invattn._errors import DataError, InvAttnError
from invattn.experiments.density.evaluate_command import add_model, evaluate, evaluate_parser
from invattn.experiments.density.options import data_name, train_parser
from invattn.experiments.density.samples import check_temperatures
from invattn.experiments.density.sampling import sample_sets
from invattn.experiments.density.stored import open_flow
from invattn.experiments.density.tables import show_results
from invattn.experiments.kit.parser import OneLineParser, numbers_between, whole_number
from invattn.experiments.kit.training.loader import derive_seed


def sample_model(folder: Path, *, count: int, temperature: float, seed: int) -> Tensor:
    """Return samples of a stored flow with shape (count, N, C).

    Args:
        folder: The model's folder.
        count: How many.
        temperature: Factor of the base's standard deviation, above 0.
        seed: Decides them.

    Raises:
        DataError: If the temperature is out of range or the folder holds no flow.
        ConvergenceError: If an inverse did not converge.
        CertificateError: If the model is not the one that was certified.
    """
    check_temperatures((temperature,))
    return sample_sets(open_flow(folder)[0], count, seed=derive_seed(seed, "samples"), temperature=temperature)


if TYPE_CHECKING:
    from invattn.experiments.density.config import DensityConfig
    from invattn.experiments.density.record import DensityRecord
    from invattn.experiments.kit.training.machines import Worker


def density_parser() -> OneLineParser:
    """Return the parser of the command, still without its actions."""
    return OneLineParser(description="Normalizing flows with certified attention.")


def add_actions(parser: OneLineParser) -> None:
    """Add train, evaluate and sample to the parser, once it is a subcommand itself: jsonargparse wants that order."""
    commands = parser.add_subcommands(required=True, dest="action", metavar="ACTION")
    commands.add_subcommand("train", train_parser(), help="train flows and write results, models and a page")
    commands.add_subcommand("evaluate", evaluate_parser(), help="likelihood of a stored flow on test samples")
    commands.add_subcommand("sample", sample_parser(), help="draw samples of a stored flow as a picture")


def sample_parser() -> OneLineParser:
    """Return the parser of ``density sample``."""
    parser = OneLineParser(
        description="Draw samples of MODEL and write OUTPUT/samples.npy and pictures; for images also a page, "
        "OUTPUT/samples.html."
    )
    add_model(parser)
    parser.add_argument(
        "--count", type=whole_number(1), default=None, metavar="N", help="how many samples (images: 36, others: 12)"
    )
    parser.add_argument(
        "--temperature",
        type=numbers_between(0.0, math.inf),
        default=None,
        metavar="T,...",
        help="spread of the base (images: 0.7,0.8,1; others take one, by default 1)",
    )
    flag = ActionYesNo(no_prefix="no-")
    parser.add_argument("--interpolate", action=flag, default=False, help="images: walk between test images")
    parser.add_argument("--nearest", action=flag, default=False, help="images: training images nearest to samples")
    parser.add_argument(
        "--fid-features",
        type=str,
        default=None,
        metavar="FILE",
        help="images: Frechet distance by this TorchScript module, uint8 images (B, 3, H, W) to features (B, F)",
    )
    parser.add_argument(
        "--data", type=data_name, default=None, metavar="NAME|DIR", help="other images than those of the training"
    )
    parser.add_argument("--data-root", type=str, default=None, metavar="DIR", help="where cifar10, svhn or celeba lie")
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
    actions: dict[str, Callable[[Namespace], None]] = {"train": _train, "evaluate": evaluate, "sample": _sample}
    actions[options.action](options[options.action])


def _train(options: Namespace) -> None:
    from invattn.experiments.density.page.page import write_report
    from invattn.experiments.kit.training.companions import joined
    from invattn.experiments.kit.training.machines import find_launched

    launched = find_launched(os.environ)
    config = _train_config(options, launched)
    with joined(launched, on_gpu=config.machines().on_gpu):
        record = _run_train(config, config.machines().first_worker(os.environ))
    if record is None:
        return
    page = write_report(config.output)
    show_results(record)
    print(f"page: {page.resolve()}")
    stopped = [result for result in record.results if result.extra.get("stopped_at") is not None]
    if stopped:
        first = stopped[0]
        raise TrainingStopped(
            f"{len(stopped)} of {len(record.results)} trainings stopped early. {first.variant}, seed {first.seed}: "
            f"{first.refused}. The last saved states stay in {config.output / 'cells'}; try a smaller "
            "--lr or --clip."
        )


def _train_config(options: Namespace, launched: Worker | None) -> DensityConfig:
    """Return the options of a training; a launcher decides the number of processes."""
    from invattn.experiments.density.config import density_config

    given = {key: value for key, value in vars(options).items() if value is not None and key != "config"}
    given |= {key: Path(value) for key, value in given.items() if key in ("output", "data_root")}
    if launched is not None and "devices" not in given and "nodes" not in given:
        given |= {"devices": launched.machines.devices, "nodes": launched.machines.nodes}
    try:
        return density_config(given)
    except ValueError as error:
        raise DataError(str(error)) from None


def _run_train(config: DensityConfig, worker: Worker) -> DensityRecord | None:
    """Train, and measure in the first process of all; the others return None."""
    from rich.console import Console

    from invattn.experiments.density.run import follow_density, run_density
    from invattn.experiments.kit.progress import SilentProgress, progress_for
    from invattn.experiments.kit.training.interruption import Interrupted

    progress = SilentProgress() if worker.local_rank else progress_for(Console(stderr=True))
    try:
        if worker.leads:
            return run_density(config, progress)
        follow_density(config, progress)
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from None
    if not worker.local_rank:
        print(f"done: the first machine writes {config.output}")
    return None


class TrainingStopped(InvAttnError):
    """A loss was not finite; the results of the other trainings are written."""


def _sample(options: Namespace) -> None:
    from invattn.experiments.density.samples import check_temperatures, is_image_flow
    from invattn.experiments.kit.run import check_output

    check_output(Path(options.output))
    if options.temperature is not None:
        check_temperatures(options.temperature)
    if is_image_flow(Path(options.model)):
        _sample_images(options)
    else:
        _sample_points(options)


def _sample_images(options: Namespace) -> None:
    from rich.console import Console

    from invattn.experiments.density.page.samples import write_sample_page
    from invattn.experiments.density.samples import SampleOptions, sample_images, write_sampled_images
    from invattn.experiments.kit.progress import progress_for

    names = ("count", "interpolate", "nearest", "data", "seed")
    given = {name: getattr(options, name) for name in names} | {"temperatures": options.temperature}
    paths = {name: getattr(options, name) for name in ("fid_features", "data_root")}
    given |= {name: Path(path) for name, path in paths.items() if path is not None}
    settings = {name: value for name, value in given.items() if value is not None}
    sampled = sample_images(SampleOptions(model=Path(options.model), **settings), progress_for(Console(stderr=True)))
    output = Path(options.output)
    write_sampled_images(output, sampled)
    for line in sampled.lines():
        print(line)
    print(f"page: {write_sample_page(output).resolve()}")


def _sample_points(options: Namespace) -> None:
    from invattn.experiments.density.page.page import write_samples

    given = [name for name in ("interpolate", "nearest", "fid_features", "data") if getattr(options, name)]
    if given:
        raise DataError(f"--{given[0].replace('_', '-')} is for flows over images. Leave it out.")
    temperatures = options.temperature or (1.0,)
    if len(temperatures) > 1:
        raise DataError("points are drawn at one temperature at a time. Give one number as --temperature.")
    samples = sample_model(
        Path(options.model), count=options.count or 12, temperature=temperatures[0], seed=options.seed
    )
    print(f"picture: {write_samples(Path(options.output), samples.numpy()).resolve()}")
