"""Typed results of the reconstruction experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from invattn.experiments.kit.record import SCHEMA_VERSION, Record, RunRecord


@dataclass(frozen=True, kw_only=True)
class ReconstructionMetrics(Record):
    """How well the test images were recovered; means over images, then over repeats, unless said otherwise.

    Attributes:
        mse: Mean squared error on the 0-255 scale.
        mse_max: Largest MSE of any image in any repeat.
        mse_std: Standard deviation of the repeats' mean MSE; 0 for one repeat.
        ssim: Structural similarity, 1 for identical images.
        v_score: Share of images with MSE < 10, in 0..1.
        converged: Share of images whose residual reached the solver's tolerance, in 0..1.
        non_finite: Number of pixel values that were not finite, over all images and repeats.
        evaluations_mean: Evaluations of the residual branch for one image, mean.
        evaluations_max: The same, maximum over all images and repeats; a whole number.
    """

    what: ClassVar[str] = "a result's metrics"

    mse: float
    mse_max: float
    mse_std: float
    ssim: float
    v_score: float
    converged: float
    non_finite: int
    evaluations_mean: float
    evaluations_max: float


@dataclass(frozen=True, kw_only=True)
class ReconstructionResult(Record):
    """One cell of the reconstruction table: one attention kind in one recipe on one data set.

    Attributes:
        attention: Name of the attention kind.
        recipe: Name of the recipe.
        dataset: Name of the data set.
        image_size: 32 or "32" for 32x32 images, "original" or "HxW" for larger ones.
        images: Number of test images in each repeat.
        repeats: Number of repeats.
        metrics: What was measured.
        certificate: ``{"bound", "norm"}`` (the largest bound of all repeats), or None where the recipe has none.
        paper: ``{"mse", "ssim", "v_score"}`` as published for this cell, or None.
        train_loss: For each repeat, the training loss after each epoch.
        seconds: ``{"train", "test"}``, wall time in seconds over all repeats.
        extra: Further keys of the file, kept as they are.
    """

    attention: str
    recipe: str
    dataset: str
    image_size: int | str
    images: int
    repeats: int
    metrics: ReconstructionMetrics
    certificate: Mapping[str, Any] | None = None
    paper: Mapping[str, Any] | None = None
    train_loss: Sequence[Sequence[float]] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReconstructionRecord(RunRecord):
    """Everything that one run of the reconstruction experiment reports; the content of ``results.json``.

    ``data`` is ``{"name", "fingerprint", "train", "test", "native_size", "notes"}``: the data set, the SHA-256 of its
    pixels, how many images were used to train and to test, their size in the data set, and remarks in words.

    Attributes:
        results: One entry for each attention kind and recipe.
    """

    results: Sequence[ReconstructionResult]

    @classmethod
    def _refusal(cls, version: int) -> str:
        return (
            f"results.json has schema version {version}, this library reads {SCHEMA_VERSION}. "
            "Use the version of invattn that wrote it, or run the experiment again."
        )
