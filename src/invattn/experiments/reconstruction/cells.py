"""One cell of the table: a variant and a repeat, and the file that keeps its finished numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from invattn._errors import DataError
from invattn._files import read_json, write_json
from invattn.experiments.kit.run import source_hash
from invattn.experiments.reconstruction.config import ReconstructionConfig, Variant
from invattn.hub.certificate import hash_json


@dataclass(frozen=True)
class Cell:
    """A training and its evaluation.

    Attributes:
        variant: The attention kind and recipe.
        repeat: Number of the repeat, from 0.
        key: Hash of everything the numbers depend on: options, data, code, version of torch.
        output: Folder of the run.
    """

    variant: Variant
    repeat: int
    key: str
    output: Path

    @property
    def name(self) -> str:
        """``<attention>-<recipe>-<repeat>``."""
        return f"{self.variant.name}-{self.repeat}"

    @property
    def results_file(self) -> Path:
        """Where the finished numbers are; written last, so that its presence means that the cell is done."""
        return self.output / "cells" / f"{self.name}.json"

    @property
    def checkpoint_file(self) -> Path:
        """Where the state of an unfinished training is."""
        return self.output / "cells" / f"{self.name}.ckpt"

    @property
    def model_folder(self) -> Path:
        """Where the trained model of this repeat is."""
        return self.output / "cells" / self.name

    @property
    def published_model_folder(self) -> Path:
        """Where the first repeat's model is for the user."""
        return self.output / "model" / self.variant.name

    @property
    def artifact_file(self) -> Path:
        """Where the first repeat's figures' data are."""
        return self.output / "artifacts" / f"{self.variant.name}.npz"


@dataclass(frozen=True, kw_only=True)
class CellResult:
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

    mse: list[float]
    ssim: list[float]
    converged: list[bool]
    evaluations: list[int]
    non_finite: list[int]
    losses: list[float]
    stopped_at: int | None
    certificate: dict[str, Any] | None
    train_seconds: float
    test_seconds: float


def make_cells(
    variants: Sequence[Variant], *, config: ReconstructionConfig, fingerprint: str, batch_size: int
) -> list[Cell]:
    """Return every cell of a run, with its key.

    Args:
        variants: The rows of the table.
        config: The user's options.
        fingerprint: Hash of all pixels of the data.
        batch_size: The batch size that is really used.
    """
    return [
        Cell(variant, repeat, cell_key(variant, repeat, config, fingerprint, batch_size), config.output)
        for variant in variants
        for repeat in range(config.repeats)
    ]


def cell_key(variant: Variant, repeat: int, config: ReconstructionConfig, fingerprint: str, batch_size: int) -> str:
    """Return the hash of everything that the numbers of a cell depend on."""
    return hash_json(
        {
            "model": variant.model_config(config).to_json(),
            "epochs": config.chosen_epochs(),
            "batch_size": batch_size,
            "lr": config.lr,
            "seed": config.seed,
            "repeat": repeat,
            "data": fingerprint,
            "code": source_hash(),
            "torch": torch.__version__,
        }
    )


def finished_result(cell: Cell) -> CellResult | None:
    """Return the kept numbers of a cell, or None if it, or a file that belongs to it, is not there yet.

    Raises:
        DataError: If the kept numbers are of another configuration, data, or version, or damaged.
    """
    if not cell.results_file.exists():
        return None
    content = read_json(cell.results_file)
    if not isinstance(content, dict) or content.get("key") != cell.key:
        raise DataError(
            f"{cell.results_file.parent} holds results of other options, data or code. Choose another --output, or "
            "delete that folder."
        )
    own_files = [cell.artifact_file, cell.published_model_folder / "certificate.json"] if cell.repeat == 0 else []
    if not all(path.exists() for path in own_files):
        return None
    try:
        return CellResult(**{field.name: _numbers(content[field.name]) for field in fields(CellResult)})
    except KeyError as error:
        raise DataError(f"{cell.results_file} lacks {error}. Delete it and run again.") from None


def store_result(cell: Cell, result: CellResult) -> None:
    """Write the numbers of a finished cell and remove the state of its training."""
    head = {"key": cell.key, "attention": cell.variant.attention, "recipe": cell.variant.label, "repeat": cell.repeat}
    write_json(cell.results_file, head | vars(result))
    cell.checkpoint_file.unlink(missing_ok=True)


def _numbers(value: Any) -> Any:
    """Turn null in a list back into nan."""
    return [math.nan if entry is None else entry for entry in value] if isinstance(value, list) else value
