"""Typed results of the density experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from invattn._files import plain_values
from invattn.experiments.kit.record import Reader, Record, RunRecord

UNITS = ("nats", "bits")
"""In which -log p / d may be reported."""


@dataclass(frozen=True, kw_only=True)
class DensityMetrics(Record):
    """How well a trained flow explains the test samples.

    Attributes:
        per_dim: Mean of -log p(x) / d over the test samples; None where it is refused. In the file it is called
            ``nats_per_dim`` or ``bits_per_dim``.
        standard_error: Standard error of that mean over the test samples; None where it is refused.
        median: Median of -log p(x) / d, NaN if the median itself is.
        outliers: Number of test samples whose -log p(x) / d is not finite, or more than 10 interquartile ranges from
            the median.
        estimator_error: Standard error that random probes add to the mean, 0 for an exact log-determinant.
        inverse_error_max: Largest |entry| of x - inverse(f(x)) over the test samples that were inverted.
        spectral_radius_max: Largest estimate of the spectral radius of J_g over all blocks and the samples looked at.
        unit: ``nats`` or ``bits``, of the first four and of ``estimator_error``. Bits are those of whole grey levels
            v: with uniform noise u, -log2 p(v + u) / d; with learned noise the evidence lower bound,
            (-log2 p(v + u) + log2 q(u | v)) / d. The record's settings say which.
    """

    what: ClassVar[str] = "a result's metrics"

    per_dim: float | None
    standard_error: float | None
    median: float
    outliers: int
    estimator_error: float
    inverse_error_max: float
    spectral_radius_max: float
    unit: str = "nats"

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as plain JSON values, the unit in the name of the first."""
        plain: dict[str, Any] = plain_values({f"{self.unit}_per_dim": self.per_dim} | vars(self))
        del plain["per_dim"], plain["unit"]
        return plain

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Build metrics from JSON values; a measured number that is null becomes nan, a refused one stays None.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = Reader(value, cls.what)
        unit = next((name for name in UNITS if f"{name}_per_dim" in value), UNITS[0])
        per_dim = source.get(f"{unit}_per_dim", int, float, type(None))
        return cls(**cls._read(source, apart={"per_dim": per_dim, "unit": unit}))


@dataclass(frozen=True, kw_only=True)
class DensityResult(Record):
    """One trained flow.

    Attributes:
        variant: What it is, such as ``embedded_gaussian-certified``.
        metrics: What was measured.
        seed: Of this training.
        cpu_seconds: CPU time of the training.
        parameters: Number of trained numbers.
        certificate: ``{"bound", "norm"}`` of the least contractive block; None where a block has no proof.
        refused: Why there is no likelihood; None where there is one.
        train_loss: Training loss of every step, in the unit of the metrics.
        extra: Further keys of the file, kept as they are.
    """

    variant: str
    metrics: DensityMetrics
    seed: int
    cpu_seconds: float
    parameters: int
    certificate: Mapping[str, Any] | None = None
    refused: str | None = None
    train_loss: Sequence[float] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DensityRecord(RunRecord):
    """Everything that one run of the density experiment reports; the content of ``results.json``.

    ``data`` is ``{"name", "train", "test", "dimensions", "event_shape", "references", "notes"}``, of images also
    ``{"fingerprint", "levels"}``.

    Attributes:
        results: One entry for each trained variant.
    """

    experiment: ClassVar[str | None] = "density"
    written_by: ClassVar[str] = "invattn density"

    results: Sequence[DensityResult]
