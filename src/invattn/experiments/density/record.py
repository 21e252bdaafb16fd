"""Typed results of the density experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from invattn._errors import DataError
from invattn._files import plain_values
from invattn.experiments.kit.record import SCHEMA_VERSION, Reader

EXPERIMENT = "density"

UNITS = ("nats", "bits")
"""In which -log p / d may be reported."""


@dataclass(frozen=True, kw_only=True)
class DensityMetrics:
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
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("per_dim", "unit")}
        return {f"{self.unit}_per_dim": self.per_dim} | values

    @classmethod
    def from_json(cls, value: Any) -> DensityMetrics:
        """Build metrics from JSON values; a measured number that is null becomes nan, a refused one stays None.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = Reader(value, "a result's metrics")
        unit = next((name for name in UNITS if f"{name}_per_dim" in value), UNITS[0])
        return cls(
            per_dim=source.get(f"{unit}_per_dim", int, float, type(None)),
            standard_error=source.get("standard_error", int, float, type(None)),
            unit=unit,
            **{f.name: source.number(f.name) for f in fields(cls) if f.name not in _WRITTEN_APART},
        )


_WRITTEN_APART = ("per_dim", "standard_error", "unit")


@dataclass(frozen=True, kw_only=True)
class DensityResult:
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

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("metrics", "extra")}
        plain: dict[str, Any] = plain_values({**self.extra, **own, "metrics": self.metrics.to_json()})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> DensityResult:
        """Build a result from JSON values; a measured number that is null becomes nan, a refused one stays None.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = Reader(value, "a result")
        return cls(
            variant=source.get("variant", str),
            metrics=DensityMetrics.from_json(source.get("metrics", dict)),
            seed=source.get("seed", int),
            cpu_seconds=source.number("cpu_seconds"),
            parameters=source.get("parameters", int),
            certificate=source.get("certificate", dict, type(None), default=None),
            refused=source.get("refused", str, type(None), default=None),
            train_loss=source.numbers("train_loss"),
            extra=source.others({f.name for f in fields(cls)}),
        )


@dataclass(frozen=True, kw_only=True)
class DensityRecord:
    """Everything that one run of the density experiment reports; the content of ``results.json``.

    Attributes:
        command: The command line that was run.
        seed: The seed of the run.
        versions: Library name -> version.
        data: ``{"name", "train", "test", "dimensions", "event_shape", "references", "notes"}``, of images also
            ``{"fingerprint", "levels"}``.
        settings: Option name -> value, as run.
        results: One entry for each trained variant.
        schema_version: Version of the file's layout.
        extra: Further keys of the file, kept as they are.
    """

    command: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    results: Sequence[DensityResult]
    schema_version: int = SCHEMA_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, the schema version first."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("results", "extra")}
        head = {"schema_version": None, "experiment": EXPERIMENT}
        plain: dict[str, Any] = plain_values(
            {**head, **self.extra, **own, "results": [result.to_json() for result in self.results]}
        )
        return plain

    @classmethod
    def from_json(cls, value: Any) -> DensityRecord:
        """Build a record from JSON values.

        Raises:
            DataError: If the layout is of another version, a key is missing or a value is of the wrong kind.
        """
        source = Reader(value, "results.json")
        version = source.get("schema_version", int)
        if version != SCHEMA_VERSION or source.get("experiment", str, default="") != EXPERIMENT:
            raise DataError(
                f"results.json is no record of `invattn density` in schema version {SCHEMA_VERSION}. "
                "Use the version of invattn that wrote it, or run the experiment again."
            )
        return cls(
            command=source.get("command", str),
            seed=source.get("seed", int),
            versions=source.get("versions", dict),
            data=source.get("data", dict),
            settings=source.get("settings", dict),
            results=[DensityResult.from_json(entry) for entry in source.get("results", list)],
            schema_version=version,
            extra=source.others({f.name for f in fields(cls)} | {"experiment"}),
        )


def is_density(value: Any) -> bool:
    """Whether the content of a ``results.json`` is of the density experiment."""
    return isinstance(value, dict) and value.get("experiment") == EXPERIMENT
