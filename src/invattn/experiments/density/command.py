"""``invattn density``: train, evaluate and sample normalizing flows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from invattn._errors import DataError
from invattn.experiments.density.config import (
    DensityConfig,
    EvaluateOptions,
    SampleOptions,
    density_config,
)
from invattn.experiments.kit.parser import Command, CommandGroup
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.machines import Worker, find_launched

if TYPE_CHECKING:
    from torch import Tensor

    from invattn.experiments.density.record import DensityRecord


def train(config: DensityConfig) -> None:
    """Train and measure the flows, write the page, and print the results and the page's path.

    Raises:
        InvAttnError: If a loss was not finite.
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    from invattn.experiments.density.page.page import write_report
    from invattn.experiments.density.tables import show_results
    from invattn.experiments.kit.terminal import refuse_stopped, show_path
    from invattn.experiments.kit.training.companions import joined

    with joined(find_launched(os.environ), on_gpu=config.machines().on_gpu):
        record = _train_or_follow(config, config.machines().first_worker(os.environ))
    if record is None:
        return
    page = write_report(config.output)
    show_results(record)
    show_path("page", page)
    stopped = [result for result in record.results if result.extra.get("stopped_at") is not None]
    reasons = [f"{result.variant}, seed {result.seed}: {result.refused}" for result in stopped]
    refuse_stopped(reasons, trainings=len(record.results), output=config.output, remedy="--lr or --clip")


def _launched_config(given: Mapping[str, Any]) -> DensityConfig:
    """Return the options of a training; a launcher decides the number of processes."""
    launched = find_launched(os.environ)
    if launched is not None and "devices" not in given and "nodes" not in given:
        given = {**given, "devices": launched.machines.devices, "nodes": launched.machines.nodes}
    return density_config(given)


def _train_or_follow(config: DensityConfig, worker: Worker) -> DensityRecord | None:
    """Train, and measure in the first process of all; the others return None."""
    from invattn.experiments.density.run import follow_density, run_density
    from invattn.experiments.kit.terminal import progress_shown

    with progress_shown() as shown:
        progress = SilentProgress() if worker.local_rank else shown
        if worker.leads:
            return run_density(config, progress)
        follow_density(config, progress)
    if not worker.local_rank:
        print(f"done: the first machine writes {config.output}")
    return None


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate the model and print what was found."""
    from invattn.experiments.density.evaluation import EVALUATION_FILE, evaluate_model
    from invattn.experiments.density.tables import show_evaluation
    from invattn.experiments.kit.terminal import progress_shown, show_path

    with progress_shown() as progress:
        found = evaluate_model(options, progress)
    show_evaluation(options.model, found)
    if options.output is not None:
        show_path("written", options.output / EVALUATION_FILE)


def sample(options: SampleOptions) -> None:
    """Draw samples, write them and their pictures, and print where.

    Raises:
        DataError: If an option does not fit the model.
    """
    from invattn.experiments.density.page.samples import write_sample_page, write_samples
    from invattn.experiments.density.samples import is_image_flow, sample_images, write_sampled_images
    from invattn.experiments.kit.output import check_output
    from invattn.experiments.kit.terminal import progress_shown, show_path

    check_output(options.output)
    if not is_image_flow(options.model):
        show_path("picture", write_samples(options.output, sample_points(options).numpy()))
        return
    with progress_shown() as progress:
        sampled = sample_images(options, progress)
    write_sampled_images(options.output, sampled)
    for line in sampled.lines():
        print(line)
    show_path("page", write_sample_page(options.output))


def sample_points(options: SampleOptions) -> Tensor:
    """Return samples of a stored flow over points, with shape (count, *event).

    Raises:
        DataError: If the folder holds no flow, or an option is one for images.
        ConvergenceError: If an inverse did not converge.
        CertificateError: If the model is not the one that was certified.
    """
    from invattn.experiments.density.sampling import sample_sets
    from invattn.experiments.density.stored import open_flow
    from invattn.experiments.kit.training.loader import derive_seed

    given = [name for name in ("interpolate", "nearest", "fid_features", "data") if getattr(options, name)]
    if given:
        raise DataError(f"--{given[0].replace('_', '-')} is for flows over images. Leave it out.")
    temperature, *more = options.temperature or (1.0,)
    if more:
        raise DataError("points are drawn at one temperature at a time. Give one number as --temperature.")
    seed = derive_seed(options.seed, "samples")
    return sample_sets(open_flow(options.model)[0], options.count or 12, seed=seed, temperature=temperature)


TRAIN = Command(
    name="train",
    summary="train flows and write results, models and a page",
    description="Train a flow for each attention by maximum likelihood, measure it on test samples, and write "
    "OUTPUT/results.json, the models and OUTPUT/report.html.",
    epilog="Options that are not given have values recommended for the data set; results.json lists all of them.",
    options=DensityConfig,
    build=_launched_config,
    fixed=("data",),
    run=train,
    config_file=True,
)
EVALUATE = Command(
    name="evaluate",
    summary="likelihood of a stored flow on test samples",
    description="Measure the likelihood of MODEL on test samples, with exact log-determinants up to 256 dimensions and "
    "without bias above, and its inverse on them, on other data, on noise and far away.",
    options=EvaluateOptions,
    run=evaluate,
)
SAMPLE = Command(
    name="sample",
    summary="draw samples of a stored flow as a picture",
    description="Draw samples of MODEL and write OUTPUT/samples.npy and pictures; for images also a page, "
    "OUTPUT/samples.html.",
    options=SampleOptions,
    run=sample,
)
COMMAND = CommandGroup(
    name="density",
    summary="train, evaluate and sample normalizing flows",
    description="Normalizing flows with certified attention.",
    actions=(TRAIN, EVALUATE, SAMPLE),
)
