"""Typed results of camouflaged object detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from invattn.experiments.kit.record import Record, RunRecord


@dataclass(frozen=True, kw_only=True)
class MapMetrics(Record):
    """How well the maps of a test set agree with its masks; means over images.

    Attributes:
        s_measure: Structure measure, alpha 0.5.
        f_mean: F-measure, beta^2 = 0.3, mean over 256 thresholds.
        f_max: Largest F-measure of any threshold.
        f_adaptive: F-measure at twice the mean of each map.
        f_weighted: Weighted F-measure.
        e_mean: E-measure, mean over 256 thresholds.
        e_max: Largest E-measure of any threshold.
        e_adaptive: E-measure at twice the mean of each map.
        mae: Mean absolute error, 0..1.
        images: Number of images.
    """

    what: ClassVar[str] = "the metrics of a test set"

    s_measure: float
    f_mean: float
    f_max: float
    f_adaptive: float
    f_weighted: float
    e_mean: float
    e_max: float
    e_adaptive: float
    mae: float
    images: int


@dataclass(frozen=True, kw_only=True)
class CamouflageRow(Record):
    """One trained network.

    Attributes:
        attention: Kind of the attention, or ``none``.
        recipe: Form of the attention; ``none`` with ``none``.
        seed: Of this training.
        sets: Test set -> what was measured.
        parameters: Number of trained numbers.
        seconds: Wall time of the training; of its last part, if it was resumed.
        peak_memory: Bytes: largest resident set of the process during the training, or what a GPU held at most.
        certificate: ``{"bound", "norm"}`` of the least contractive attention module; None where nothing is proven.
        inverse: How well the attention modules inverted: ``{"error_max", "error_median", "converged", "images"}``, the
            relative error |x - recovered x| / |x| over all modules and images looked at; None without attention.
        train_loss: Training loss of every epoch; nan is of an epoch that did not finish.
        extra: Further keys of the file, kept as they are.
    """

    what: ClassVar[str] = "a row"

    attention: str
    recipe: str
    seed: int
    sets: Mapping[str, MapMetrics]
    parameters: int
    seconds: float
    peak_memory: int
    certificate: Mapping[str, Any] | None = None
    inverse: Mapping[str, Any] | None = None
    train_loss: Sequence[float] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """``<attention>-<recipe>``."""
        return f"{self.attention}-{self.recipe}"


@dataclass(frozen=True, kw_only=True)
class CamouflageRecord(RunRecord):
    """Everything that one run of ``invattn camouflage train`` reports; the content of ``results.json``.

    ``data`` is ``{"name", "fingerprint", "train", "sets", "mean_mask", "notes"}``: images of the training set and of
    each test set, the S-measure of predicting the mean training mask on each test set, and remarks in words.

    Attributes:
        rows: One entry for each trained network.
    """

    experiment: ClassVar[str | None] = "camouflage"
    written_by: ClassVar[str] = "invattn camouflage train"

    rows: Sequence[CamouflageRow]
