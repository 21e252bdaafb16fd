"""Typed results of the reconstruction experiment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from invattn._errors import DataError
from invattn._files import plain_values, read_json
from invattn.experiments.kit.record import SCHEMA_VERSION, Reader, number_or_nan


@dataclass(frozen=True, kw_only=True)
class ReconstructionMetrics:
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
class ReconstructionResult:
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

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("metrics", "extra")}
        metrics = {f.name: getattr(self.metrics, f.name) for f in fields(self.metrics)}
        plain: dict[str, Any] = plain_values({**self.extra, **own, "metrics": metrics})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> ReconstructionResult:
        """Build a result from JSON values; a measured number that is null becomes nan.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = Reader(value, "a result")
        metrics = Reader(source.get("metrics", dict), "a result's metrics")
        size = source.get("image_size", int, str)
        measured = {f.name: metrics.number(f.name) for f in fields(ReconstructionMetrics)}
        losses = source.get("train_loss", list, default=[])
        return cls(
            attention=source.get("attention", str),
            recipe=source.get("recipe", str),
            dataset=source.get("dataset", str),
            image_size=size,
            images=source.get("images", int),
            repeats=source.get("repeats", int),
            metrics=ReconstructionMetrics(**measured),
            certificate=source.get("certificate", dict, type(None), default=None),
            paper=source.get("paper", dict, type(None), default=None),
            train_loss=[
                [number_or_nan(v) for v in (entry if isinstance(entry, list) else [entry])] for entry in losses
            ],
            seconds={name: number_or_nan(v) for name, v in source.get("seconds", dict, default={}).items()},
            extra=source.others({f.name for f in fields(cls)}),
        )


@dataclass(frozen=True, kw_only=True)
class ReconstructionRecord:
    """Everything that one run of the reconstruction experiment reports; the content of ``results.json``.

    Attributes:
        command: The command line that was run.
        seed: The seed of the run.
        versions: Library name -> version.
        data: ``{"name", "fingerprint", "train", "test", "notes"}``: the data set, the SHA-256 of its pixels, how many
            images were used to train and to test, and remarks in words.
        settings: Option name -> value, as run.
        results: One entry for each attention kind and recipe.
        schema_version: Version of the file's layout.
        extra: Further keys of the file, kept as they are.
    """

    command: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    results: Sequence[ReconstructionResult]
    schema_version: int = SCHEMA_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, the schema version first."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("results", "extra")}
        results = [result.to_json() for result in self.results]
        plain: dict[str, Any] = plain_values({"schema_version": None, **self.extra, **own, "results": results})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> ReconstructionRecord:
        """Build a record from JSON values.

        Raises:
            DataError: If the layout is of another version, a key is missing or a value is of the wrong kind.
        """
        source = Reader(value, "results.json")
        version = source.get("schema_version", int)
        if version != SCHEMA_VERSION:
            raise DataError(
                f"results.json has schema version {version}, this library reads {SCHEMA_VERSION}. "
                "Use the version of invattn that wrote it, or run the experiment again."
            )
        return cls(
            command=source.get("command", str),
            seed=source.get("seed", int),
            versions=source.get("versions", dict),
            data=source.get("data", dict),
            settings=source.get("settings", dict),
            results=[ReconstructionResult.from_json(entry) for entry in source.get("results", list)],
            schema_version=version,
            extra=source.others({f.name for f in fields(cls)}),
        )


def read_record(path: str | os.PathLike[str]) -> ReconstructionRecord:
    """Read a ``results.json``.

    Raises:
        DataError: If it is missing, broken or of another layout; one line that names the file.
    """
    value = read_json(path)
    try:
        return ReconstructionRecord.from_json(value)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
