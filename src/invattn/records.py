"""Typed results of the experiments, the paper's published figures, and files that are never half-written."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import numbers
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from invattn._errors import DataError

SCHEMA_VERSION = 1


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the whole old file or the whole new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take the place of ``path``.
    If any step fails, or is interrupted, the temporary file is removed and the old file is untouched. A symbolic link
    is followed.

    Args:
        path: The file to write; its folder must exist.
        data: The complete new content.

    Raises:
        OSError: If the file cannot be written: no space, no permission, a size limit, no folder; it names ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        _write_new(temporary, data)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    _sync_folder(target.parent)


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet and wait until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entry of a renamed file where the system allows it; the file itself is already in place."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` as indented JSON, atomically; numbers that are not finite become null.

    Args:
        path: The file to write.
        obj: Mappings with string keys, lists, tuples, numbers (numpy's too), strings, paths, booleans, None; nested.

    Raises:
        TypeError: If ``obj`` holds anything else; nothing is written then.
        OSError: As ``atomic_write``.
    """
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, (text + "\n").encode("utf-8"))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        DataError: If the file is missing, unreadable or not JSON; one line that names it.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Give the folder that a finished run wrote.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not valid JSON ({reason}). Run the experiment again to rewrite it.") from None


def _plain(value: Any) -> Any:
    """Reduce a value to what JSON can hold exactly: floats that are not finite become None."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {_key(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a record cannot hold a {type(value).__name__}; give numbers, strings, lists and dicts.")


def _key(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the keys of a record must be strings; got {name!r}.")
    return name


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
        plain: dict[str, Any] = _plain({**self.extra, **own, "metrics": metrics})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> ReconstructionResult:
        """Build a result from JSON values; a measured number that is null becomes nan.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = _Reader(value, "a result")
        metrics = _Reader(source.get("metrics", dict), "a result's metrics")
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
            train_loss=[[_float(v) for v in (entry if isinstance(entry, list) else [entry])] for entry in losses],
            seconds={name: _float(v) for name, v in source.get("seconds", dict, default={}).items()},
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
        plain: dict[str, Any] = _plain({"schema_version": None, **self.extra, **own, "results": results})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> ReconstructionRecord:
        """Build a record from JSON values.

        Raises:
            DataError: If the layout is of another version, a key is missing or a value is of the wrong kind.
        """
        source = _Reader(value, "results.json")
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


class _Reader:
    """Checked access to the keys of a JSON object."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise DataError(f"{what} must be a JSON object; got {type(value).__name__}. Run the experiment again.")
        self._value = value
        self._what = what

    def get(self, key: str, *kinds: type, default: Any = ...) -> Any:
        """Return the value of ``key``, which must be of one of ``kinds``; a bool is not an int here."""
        value = self._value.get(key, default)
        if value is ...:
            raise DataError(f"{self._what} lacks the key {key!r}. Run the experiment again to rewrite it.")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise DataError(f"{key!r} of {self._what} must be {names}; got {value!r:.60}. Run the experiment again.")
        return value

    def number(self, key: str) -> Any:
        """Return a number; null becomes nan."""
        value = self.get(key, int, float, type(None))
        return math.nan if value is None else value

    def others(self, known: set[str]) -> dict[str, Any]:
        """Return every key that is not known."""
        return {key: value for key, value in self._value.items() if key not in known}


def _float(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"a number was expected in results.json; got {value!r:.60}. Run the experiment again.")
    return float(value)


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


def published_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of published figures.

    Args:
        name: ``table2``, ``table3`` or ``table5``; the number is the paper's.
    """
    text = resources.files("invattn.published").joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def published_reconstruction(dataset: str, image_size: int | str) -> dict[str, dict[str, float] | None]:
    """Return the paper's reconstruction figures for a data set: Table 2 for 32x32 images, Table 5 for 218x178 ones.

    Args:
        dataset: ``cifar10``, ``svhn`` or ``celeba``; the paper has no figures for any other.
        image_size: 32, "32" or "32x32"; "original" or "218x178".

    Returns:
        Attention kind -> ``{"mse", "ssim", "v_score"}``, or None where nothing was published (every kind of another
        data set, and ``pointwise``, which is no kind of the paper). MSE is on the 0-255 scale, ``v_score`` in 0..1.
    """
    small, large = published_rows("table2"), published_rows("table5")
    table = {"32": small, "32x32": small, "original": large, "218x178": large}.get(str(image_size), [])
    found: dict[str, dict[str, float] | None] = {row["attention"]: None for row in small}
    found["pointwise"] = None
    for row in table:
        if row["dataset"] == dataset:
            found[row["attention"]] = {key: float(row[key]) for key in ("mse", "ssim", "v_score")}
    return found


COLLISION_GREY_LEVELS = 2.0
"""RMS difference in grey levels from which on two images with one output are counted as a pair."""

COLLISION_OUTPUT = 1e-5
"""The largest difference of their outputs, in the norm of the diagnosis."""


@dataclass(frozen=True, kw_only=True)
class DiagnosedImage:
    """What was measured of one test image; numbers that were left out are nan.

    Attributes:
        index: Number of the image in the data set.
        spectral_radius: Estimate of the largest |eigenvalue| of J_g at the image.
        path_radius: The largest one on the way to its output.
        spectral_norm: Estimate of |J_g|_2.
        lipschitz_ratio: Largest local Lipschitz ratio that was found.
        det_sign: Sign of det(I + J_g); 0 where it was not computed.
        reasons: Why it is flagged; empty where it is not.
        second_preimage: Whether another input with the same output was found.
        rms: Root mean squared difference of the two on the 0-255 scale; 0 where none was found.
        output_difference: Difference of the two outputs.
        pull: Share of the way to the other input on which the residual points there.
        mse: Mean squared error of the reconstruction on the 0-255 scale, measured apart from all else.
    """

    index: int
    spectral_radius: float
    path_radius: float
    spectral_norm: float
    lipschitz_ratio: float
    det_sign: int
    reasons: Sequence[str]
    second_preimage: bool
    rms: float
    output_difference: float
    pull: float
    mse: float

    @property
    def flagged(self) -> bool:
        """Whether its inverse is expected to fail."""
        return bool(self.reasons)

    @property
    def collides(self) -> bool:
        """Whether it has one output with another, visibly different image."""
        return self.second_preimage and self.rms >= COLLISION_GREY_LEVELS and self.output_difference <= COLLISION_OUTPUT

    @classmethod
    def from_json(cls, value: Any) -> DiagnosedImage:
        """Build an image's numbers from JSON values.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        source = _Reader(value, "an image")
        other = {"reasons": source.get("reasons", list), "second_preimage": source.get("second_preimage", bool)}
        return cls(**other, **{f.name: source.number(f.name) for f in fields(cls) if f.name not in other})


@dataclass(frozen=True, kw_only=True)
class DiagnosisRecord:
    """Everything that ``invattn diagnose`` reports; the content of its ``results.json``.

    Attributes:
        command: The command line that was run.
        seed: The seed of the run.
        versions: Library name -> version.
        data: ``{"name", "fingerprint", "test", "notes"}``, as in :class:`ReconstructionRecord`.
        settings: Option name -> value, as run.
        model: ``{"attention", "recipe", "certificate", "lost_from"}``; the last is the MSE from which on the
            reconstruction counts as lost.
        images: One entry for each test image.
        seconds: ``{"diagnosis", "reconstruction"}``, wall time in seconds.
        schema_version: Version of the file's layout.
    """

    command: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    images: Sequence[DiagnosedImage]
    seconds: Mapping[str, float]
    schema_version: int = SCHEMA_VERSION

    def lost(self, image: DiagnosedImage) -> bool:
        """Whether the reconstruction of an image failed; an error that is not a number did."""
        return not image.mse < float(self.model["lost_from"])

    def summary(self) -> dict[str, Any]:
        """Return the counts, and precision and recall of the flag; None where there is nothing to divide by."""
        lost = [self.lost(image) for image in self.images]
        flagged = [image.flagged for image in self.images]
        both = sum(a and b for a, b in zip(lost, flagged, strict=True))
        return {
            "images": len(self.images),
            "flagged": sum(flagged),
            **{
                name: sum(name in image.reasons for image in self.images) for name in ("repelling", "slow", "competing")
            },
            "second_preimages": sum(image.second_preimage for image in self.images),
            "pairs": sum(image.collides for image in self.images),
            "det_computed": sum(image.det_sign != 0 for image in self.images),
            "det_negative": sum(image.det_sign < 0 for image in self.images),
            "lost": sum(lost),
            "lost_and_flagged": both,
            "recall": both / sum(lost) if any(lost) else None,
            "precision": both / sum(flagged) if any(flagged) else None,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, the counts before the images."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "images"}
        images = [{f.name: getattr(image, f.name) for f in fields(image)} for image in self.images]
        head = {"schema_version": None, "experiment": "diagnose"}
        plain: dict[str, Any] = _plain({**head, **own, "summary": self.summary(), "images": images})
        return plain

    @classmethod
    def from_json(cls, value: Any) -> DiagnosisRecord:
        """Build a record from JSON values.

        Raises:
            DataError: If it is no diagnosis, of another version, or damaged.
        """
        source = _Reader(value, "results.json")
        if (
            source.get("experiment", str, default="") != "diagnose"
            or source.get("schema_version", int) != SCHEMA_VERSION
        ):
            raise DataError("results.json was not written by this version of `invattn diagnose`. Run it again.")
        model = source.get("model", dict)
        if not isinstance(model.get("lost_from"), (int, float)):
            raise DataError("'model' of results.json lacks the number 'lost_from'. Run `invattn diagnose` again.")
        return cls(
            command=source.get("command", str),
            seed=source.get("seed", int),
            versions=source.get("versions", dict),
            data=source.get("data", dict),
            settings=source.get("settings", dict),
            model=model,
            images=[DiagnosedImage.from_json(entry) for entry in source.get("images", list)],
            seconds=source.get("seconds", dict),
        )


def read_diagnosis(path: str | os.PathLike[str]) -> DiagnosisRecord:
    """Read the ``results.json`` of a diagnosis.

    Raises:
        DataError: If it is missing, broken or of another layout; one line that names the file.
    """
    value = read_json(path)
    try:
        return DiagnosisRecord.from_json(value)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
