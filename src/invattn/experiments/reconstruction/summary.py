"""From the numbers of all images to one line of the table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from invattn.experiments.kit.inversion import v_score
from invattn.experiments.kit.options import ORIGINAL
from invattn.experiments.kit.record import published_reconstruction
from invattn.experiments.reconstruction.cells import CellResult
from invattn.experiments.reconstruction.config import ReconstructionConfig, Variant
from invattn.experiments.reconstruction.record import ReconstructionMetrics, ReconstructionResult


def summarise(
    variant: Variant, cells: Sequence[CellResult], *, config: ReconstructionConfig, dataset: str
) -> ReconstructionResult:
    """Return the result of a variant over all its repeats, beside the paper's figures.

    Args:
        variant: The attention kind and recipe.
        cells: Its repeats, at least one.
        config: The user's options.
        dataset: Name of the data set.
    """
    certificates = [cell.certificate for cell in cells if cell.certificate is not None]
    worst = max(certificates, key=lambda certificate: float(certificate["bound"]), default=None)
    return ReconstructionResult(
        attention=variant.attention,
        recipe=variant.label,
        dataset=dataset,
        image_size=ORIGINAL if config.image_size == ORIGINAL else int(config.image_size),
        images=len(cells[0].mse),
        repeats=len(cells),
        metrics=summarise_metrics(cells),
        certificate=None if worst is None else {"bound": worst["bound"], "norm": worst["norm"]},
        paper=published_reconstruction(dataset, config.image_size).get(variant.attention),
        train_loss=[cell.losses for cell in cells],
        seconds={
            "train": sum(cell.train_seconds for cell in cells),
            "test": sum(cell.test_seconds for cell in cells),
        },
        extra={
            "mse_per_repeat": [float(np.mean(cell.mse)) for cell in cells],
            "v_score_per_repeat": [_v_score(cell) for cell in cells],
            "stopped_at": [cell.stopped_at for cell in cells],
        },
    )


def summarise_metrics(cells: Sequence[CellResult]) -> ReconstructionMetrics:
    """Return means over images and then over repeats; maxima and counts over everything."""
    mse = [float(np.mean(cell.mse)) for cell in cells]
    return ReconstructionMetrics(
        mse=float(np.mean(mse)),
        mse_max=float(np.max([value for cell in cells for value in cell.mse])),
        mse_std=float(np.std(mse, ddof=1)) if len(mse) > 1 else 0.0,
        ssim=float(np.mean([np.mean(cell.ssim) for cell in cells])),
        v_score=float(np.mean([_v_score(cell) for cell in cells])),
        converged=float(np.mean([np.mean(cell.converged) for cell in cells])),
        non_finite=sum(sum(cell.non_finite) for cell in cells),
        evaluations_mean=float(np.mean([np.mean(cell.evaluations) for cell in cells])),
        evaluations_max=max(max(cell.evaluations) for cell in cells),
    )


def _v_score(cell: CellResult) -> float:
    return v_score(torch.tensor(cell.mse, dtype=torch.float64))
