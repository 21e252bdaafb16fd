"""Typed results of camouflaged object detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from invattn._errors import DataError
from invattn._files import plain_values
from invattn.experiments.kit.record import SCHEMA_VERSION, Reader

CAMOUFLAGE = "camouflage"
"""Name of the experiment in ``results.json``."""


@dataclass(frozen=True, kw_only=True)
class MapMetrics:
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

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as plain JSON values."""
        plain: dict[str, Any] = plain_values(vars(self))
        return plain

    @classmethod
    def from_json(cls, value: Any) -> MapMetrics:
        """Build metrics from JSON values; a number that is null becomes nan.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = Reader(value, "the metrics of a test set")
        numbers = {f.name: source.number(f.name) for f in fields(cls) if f.name != "images"}
        return cls(**numbers, images=source.get("images", int))


@dataclass(frozen=True, kw_only=True)
class CamouflageRow:
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

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("sets", "extra")}
        sets = {name: metrics.to_json() for name, metrics in self.sets.items()}
        plain: dict[str, Any] = plain_values({**self.extra, **own, "sets": sets})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> CamouflageRow:
        """Build a row from JSON values.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = Reader(value, "a row")
        return cls(
            attention=source.get("attention", str),
            recipe=source.get("recipe", str),
            seed=source.get("seed", int),
            sets={name: MapMetrics.from_json(part) for name, part in source.get("sets", dict).items()},
            parameters=source.get("parameters", int),
            seconds=source.number("seconds"),
            peak_memory=source.get("peak_memory", int),
            certificate=source.get("certificate", dict, type(None), default=None),
            inverse=source.get("inverse", dict, type(None), default=None),
            train_loss=source.numbers("train_loss"),
            extra=source.others({f.name for f in fields(cls)}),
        )


@dataclass(frozen=True, kw_only=True)
class CamouflageRecord:
    """Everything that one run of ``invattn camouflage train`` reports; the content of ``results.json``.

    Attributes:
        command: The command line that was run.
        seed: The seed of the run.
        versions: Library name -> version.
        data: ``{"name", "fingerprint", "train", "sets", "mean_mask", "notes"}``: images of the training set and of each
            test set, the S-measure of predicting the mean training mask on each test set, and remarks in words.
        settings: Option name -> value, as run.
        rows: One entry for each trained network.
        schema_version: Version of the file's layout.
        extra: Further keys of the file, kept as they are.
    """

    command: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: Sequence[CamouflageRow]
    schema_version: int = SCHEMA_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, the schema version first."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("rows", "extra")}
        head = {"schema_version": None, "experiment": CAMOUFLAGE}
        plain: dict[str, Any] = plain_values(
            {**head, **self.extra, **own, "rows": [row.to_json() for row in self.rows]}
        )
        return plain

    @classmethod
    def from_json(cls, value: Any) -> CamouflageRecord:
        """Build a record from JSON values.

        Raises:
            DataError: If the layout is of another version, a key is missing or a value is of the wrong kind.
        """
        source = Reader(value, "results.json")
        version = source.get("schema_version", int)
        if version != SCHEMA_VERSION or not is_camouflage(value):
            raise DataError(
                f"results.json is no record of `invattn camouflage train` in schema version {SCHEMA_VERSION}. "
                "Use the version of invattn that wrote it, or run the experiment again."
            )
        return cls(
            command=source.get("command", str),
            seed=source.get("seed", int),
            versions=source.get("versions", dict),
            data=source.get("data", dict),
            settings=source.get("settings", dict),
            rows=[CamouflageRow.from_json(entry) for entry in source.get("rows", list)],
            schema_version=version,
            extra=source.others({f.name for f in fields(cls)} | {"experiment"}),
        )


def is_camouflage(value: Any) -> bool:
    """Whether the content of a ``results.json`` is of camouflaged object detection."""
    return isinstance(value, dict) and value.get("experiment") == CAMOUFLAGE
