"""Sample a stored flow over points."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from invattn.experiments.density_evaluation import open_flow
from invattn.experiments.density_figures import sample_sets
from invattn.experiments.density_sampling import check_temperatures
from invattn.training import derive_seed


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
