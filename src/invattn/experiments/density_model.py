"""Evaluate and sample a stored flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.bijections import Composed
from invattn.checkpoints import load_flow
from invattn.data.point_sets import DIMENSIONS, POINTS, PointSets
from invattn.evaluation import measure_likelihood
from invattn.experiments.density_figures import sample_sets
from invattn.experiments.density_measure import measure, unmeasured
from invattn.experiments.density_sampling import check_temperatures
from invattn.flows import Flow
from invattn.records import DensityResult
from invattn.training import Progress, derive_seed


@dataclass(frozen=True)
class ModelEvaluation:
    """What was measured of a stored flow.

    Attributes:
        result: The metrics; variant is the name of its folder.
        unbiased: Mean of -log p(x) / d with the unbiased estimator, in nats per dimension, or None if not asked for.
        unbiased_error: The standard error that its probes add.
    """

    result: DensityResult
    unbiased: float | None = None
    unbiased_error: float | None = None


def evaluate_model(folder: Path, *, test_size: int, seed: int, unbiased: bool, progress: Progress) -> ModelEvaluation:
    """Measure a stored flow on test samples that are generated anew.

    Args:
        folder: The model's folder.
        test_size: How many test samples.
        seed: Decides them; that of the training gives the test samples of the training's own table.
        unbiased: Whether to measure with the unbiased estimator too, beside the exact log-determinants.
        progress: Is told of every batch.

    Raises:
        DataError: If the folder holds no flow over point sets.
        CertificateError: If the model is not the one that was certified.
    """
    flow = open_flow(folder)
    test = PointSets(seed=derive_seed(seed, "test sets"))(torch.arange(test_size))
    result, _ = measure(flow, test, unmeasured(folder.name, flow, seed=seed), progress, seed=seed)
    if not unbiased or result.refused is not None:
        return ModelEvaluation(result)
    generator = torch.Generator().manual_seed(derive_seed(seed, "unbiased evaluation"))
    found = measure_likelihood(flow, test, exact=False, generator=generator)
    return ModelEvaluation(result, unbiased=found.mean, unbiased_error=found.estimator_error)


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
    return sample_sets(open_flow(folder), count, seed=derive_seed(seed, "samples"), temperature=temperature)


def open_flow(folder: Path) -> Flow:
    """Return the distribution that a folder holds.

    Raises:
        DataError: If the folder holds no flow over point sets.
        CertificateError: If the model is not the one that was certified.
    """
    loaded = load_flow(folder)
    if loaded.config.event_shape != (POINTS, DIMENSIONS):
        shape = " x ".join(str(side) for side in loaded.config.event_shape)
        raise DataError(f"{folder} is a flow over samples {shape}; `sets` has {POINTS} x {DIMENSIONS}.")
    assert isinstance(loaded.model, Composed)
    return loaded.config.distribution(loaded.model)
