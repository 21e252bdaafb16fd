"""One cell of the table, a variant and a repeat: what its numbers depend on, and how repeats become one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch

from invattn._errors import DataError
from invattn.experiments.kit.cells import Cell
from invattn.experiments.kit.data.sets import ImageData
from invattn.experiments.kit.inversion import v_score
from invattn.experiments.kit.options import ORIGINAL
from invattn.experiments.kit.record import Record, published_reconstruction
from invattn.experiments.reconstruction.config import ReconstructionConfig, Variant
from invattn.experiments.reconstruction.record import ReconstructionMetrics, ReconstructionResult
from invattn.hub import ModelConfig
from invattn.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class CellResult(Record):
    """The numbers of a finished cell.

    Attributes:
        mse: Mean squared error of each test image on the 0-255 scale.
        ssim: Structural similarity of each.
        converged: Whether the solver reached its tolerance, of each.
        evaluations: Evaluations of the residual branch, of each.
        non_finite: Number of pixel values that were not finite, of each.
        losses: Training loss of each epoch.
        stopped_at: The training step with a loss that was not finite, or None.
        certificate: Bound, norm, derivation and factors; None where nothing is proven.
        train_seconds: Wall time of the training; of its last part, if it was resumed.
        test_seconds: Wall time of the inversion of all test images.
    """

    mse: Sequence[float]
    ssim: Sequence[float]
    converged: Sequence[bool]
    evaluations: Sequence[int]
    non_finite: Sequence[int]
    losses: Sequence[float]
    stopped_at: int | None
    certificate: Mapping[str, Any] | None
    train_seconds: float
    test_seconds: float


@dataclass(frozen=True, kw_only=True)
class ReconstructionCell(Cell[ReconstructionConfig, ImageData, CellResult]):
    """A training and its evaluation.

    Attributes:
        form: The recipe itself; ``recipe`` is its name in results and files.
    """

    code: ClassVar[str] = "invattn.experiments.reconstruction.run"

    form: Recipe

    @property
    def model_config(self) -> ModelConfig:
        """What the model is built from."""
        return Variant(self.attention, self.form, self.recipe).model_config(self.config)

    @property
    def batch_size(self) -> int:
        """The batch size that is really used."""
        return min(self.config.chosen_batch_size(), len(self.data.train))

    def settings(self) -> dict[str, Any]:
        """Return the options and the hash of the data that the numbers depend on."""
        return {
            "epochs": self.config.chosen_epochs(),
            "batch_size": self.batch_size,
            "lr": self.config.lr,
            "seed": self.config.seed,
            "data": self.data.fingerprint,
        }

    def written(self, result: CellResult) -> dict[str, Any]:
        """Return the names and numbers that the cell's file holds."""
        return {"attention": self.attention, "recipe": self.recipe, "repeat": self.repeat} | result.to_json()

    def read(self, content: dict[str, Any]) -> CellResult:
        """Return the numbers that a cell's file holds."""
        for entry in fields(CellResult):
            if entry.name not in content:
                raise DataError(f"{self.file('json')} lacks {entry.name!r}. Delete it and run again.")
        return CellResult.from_json(content)

    def complete(self) -> bool:
        """Whether the first repeat's model and pictures are there."""
        own_files = [self.artifact_file, self.model_folder / "certificate.json"] if self.repeat == 0 else []
        return all(path.exists() for path in own_files)


def summarise(first: ReconstructionCell, results: Sequence[CellResult]) -> ReconstructionResult:
    """Return the result of a variant over all its repeats, beside the paper's figures.

    Args:
        first: Its first cell.
        results: Of its repeats, at least one.
    """
    certificates = [cell.certificate for cell in results if cell.certificate is not None]
    worst = max(certificates, key=lambda certificate: float(certificate["bound"]), default=None)
    return ReconstructionResult(
        attention=first.attention,
        recipe=first.recipe,
        dataset=first.data.name,
        image_size=ORIGINAL if first.config.image_size == ORIGINAL else int(first.config.image_size),
        images=len(results[0].mse),
        repeats=len(results),
        metrics=summarise_metrics(results),
        certificate=None if worst is None else {"bound": worst["bound"], "norm": worst["norm"]},
        paper=published_reconstruction(first.data.name, first.config.image_size).get(first.attention),
        train_loss=[cell.losses for cell in results],
        seconds={
            "train": sum(cell.train_seconds for cell in results),
            "test": sum(cell.test_seconds for cell in results),
        },
        extra={
            "mse_per_repeat": [float(np.mean(cell.mse)) for cell in results],
            "v_score_per_repeat": [_v_score(cell) for cell in results],
            "stopped_at": [cell.stopped_at for cell in results],
        },
    )


def summarise_metrics(results: Sequence[CellResult]) -> ReconstructionMetrics:
    """Return means over images and then over repeats; maxima and counts over everything."""
    mse = [float(np.mean(cell.mse)) for cell in results]
    return ReconstructionMetrics(
        mse=float(np.mean(mse)),
        mse_max=float(np.max([value for cell in results for value in cell.mse])),
        mse_std=float(np.std(mse, ddof=1)) if len(mse) > 1 else 0.0,
        ssim=float(np.mean([np.mean(cell.ssim) for cell in results])),
        v_score=float(np.mean([_v_score(cell) for cell in results])),
        converged=float(np.mean([np.mean(cell.converged) for cell in results])),
        non_finite=sum(sum(cell.non_finite) for cell in results),
        evaluations_mean=float(np.mean([np.mean(cell.evaluations) for cell in results])),
        evaluations_max=max(max(cell.evaluations) for cell in results),
    )


def _v_score(cell: CellResult) -> float:
    return v_score(torch.tensor(cell.mse, dtype=torch.float64))
