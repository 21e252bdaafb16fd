"""What every ``results.json`` is made of, written and read by the types of its fields, and the paper's figures."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from importlib import resources
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from invattn._errors import DataError
from invattn._files import plain_values, read_json

SCHEMA_VERSION = 1
"""Version of the layout of every ``results.json``."""


class Reader:
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


def number_or_nan(value: Any) -> float:
    """Return a number; null becomes nan.

    Raises:
        DataError: If the value is neither.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"a number was expected in results.json; got {value!r:.60}. Run the experiment again.")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A part of ``results.json``: subclasses are dataclasses, and the types of their fields say how they are read.

    A field with a default may be missing in the file. A number that is null becomes nan, but for fields that may be
    None. A field ``extra`` keeps every further key. Parts that are records themselves are written last.
    """

    what: ClassVar[str] = "a result"
    """How an error calls it."""

    computed: ClassVar[frozenset[str]] = frozenset()
    """Keys of the file that are computed from the fields; they are not read."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        kinds = _kinds(type(self))
        names = sorted((name for name in kinds if name != "extra"), key=lambda name: _holds_records(kinds[name]))
        plain: dict[str, Any] = plain_values(
            {**getattr(self, "extra", {}), **{name: _written(getattr(self, name)) for name in names}}
        )
        return plain

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Build a record from JSON values.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """
        return cls(**cls._read(Reader(value, cls.what)))

    @classmethod
    def _read(cls, source: Reader, *, apart: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the value of each field but those that were read ``apart``."""
        kinds = _kinds(cls)
        found = {} if apart is None else dict(apart)
        if "extra" in kinds:
            found["extra"] = source.others(set(kinds) | cls.computed)
        return found | {e.name: _value(source, kinds[e.name], e) for e in fields(cls) if e.name not in found}


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """Everything that one run of an experiment reports; the content of ``results.json``.

    Attributes:
        command: The command line that was run.
        seed: The seed of the run.
        versions: Library name -> version.
        data: Name and size of the data, and what else the experiment says of them.
        settings: Option name -> value, as run.
        schema_version: Version of the file's layout.
        extra: Further keys of the file, kept as they are.
    """

    what: ClassVar[str] = "results.json"
    experiment: ClassVar[str | None] = None
    """Its name in the file; reconstruction has none there."""

    written_by: ClassVar[str] = "invattn"
    """The command that writes the file."""

    command: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def wrote(cls, value: Any) -> bool:
        """Whether the content of a ``results.json`` is of this experiment."""
        return isinstance(value, dict) and value.get("experiment") == cls.experiment

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values, the schema version first."""
        head = {"schema_version": None} | ({} if self.experiment is None else {"experiment": self.experiment})
        return head | super().to_json()

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Build a record from JSON values.

        Raises:
            DataError: If the layout is of another version, a key is missing or a value is of the wrong kind.
        """
        source = Reader(value, cls.what)
        version = source.get("schema_version", int)
        if version != SCHEMA_VERSION or not (cls.experiment is None or cls.wrote(value)):
            raise DataError(cls._refusal(version))
        found = cls._read(source)
        if cls.experiment is not None:
            found["extra"].pop("experiment", None)
        return cls(**found)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a ``results.json``.

        Raises:
            DataError: If it is missing, broken or of another layout; one line that names the file.
        """
        value = read_json(path)
        try:
            return cls.from_json(value)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def _refusal(cls, version: int) -> str:
        """Say why a file of another version or experiment is not read."""
        return (
            f"results.json is no record of `{cls.written_by}` in schema version {SCHEMA_VERSION}. "
            "Use the version of invattn that wrote it, or run the experiment again."
        )


def _kinds(cls: type[Record]) -> dict[str, Any]:
    """Return field name -> type."""
    hints = get_type_hints(cls)
    return {entry.name: hints[entry.name] for entry in fields(cls)}


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record)


def _holds_records(kind: Any) -> bool:
    return _is_record(kind) or any(_is_record(part) for part in get_args(kind))


def _written(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _written(part) for name, part in value.items()}
    return [_written(part) for part in value] if isinstance(value, (list, tuple)) else value


def _value(source: Reader, kind: Any, entry: Field[Any]) -> Any:
    """Return what a file says of a field."""
    if kind is float and entry.default is MISSING:
        return source.number(entry.name)
    default = ... if entry.default is MISSING else entry.default
    if entry.default_factory is not MISSING:
        default = entry.default_factory()
    return _converted(kind, source.get(entry.name, *_json_types(kind), default=default))


def _json_types(kind: Any) -> tuple[type, ...]:
    """Return the types that ``json`` reads a value as."""
    if get_origin(kind) in (Union, UnionType):
        return tuple(found for part in get_args(kind) for found in _json_types(part))
    if kind is float:
        return (int, float)
    if _is_record(kind) or (isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping)):
        return (dict,)
    return (list,) if get_origin(kind) else (kind,)


def _converted(kind: Any, value: Any) -> Any:
    """Return the parts of a list or an object as the types of a field want them."""
    if kind is float:
        return number_or_nan(value)
    if _is_record(kind):
        return kind.from_json(value)
    parts = get_args(kind)
    if not parts or NoneType in parts or Any in parts:
        return value
    if isinstance(value, dict):
        return {name: _converted(parts[-1], part) for name, part in value.items()}
    if _json_types(kind) == (list,):
        return [_converted(parts[0], part) for part in (value if isinstance(value, list) else [value])]
    return value


def published_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of published figures.

    Args:
        name: ``table2``, ``table3``, ``table4`` or ``table5``; the number is the paper's.
    """
    text = resources.files("invattn.experiments.kit").joinpath("published", f"{name}.csv").read_text(encoding="utf-8")
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


def published_detection(attention: str, recipe: str, dataset: str) -> dict[str, float] | None:
    """Return the paper's figures of Table 4 for one network and test set.

    Args:
        attention: Kind of the attention; ``none`` is the row "Base".
        recipe: ``paper`` for the rows "Inv-", ``unconstrained`` for the others; nothing was published for any other.
        dataset: CAMO, CHAMELEON, COD10K or NC4K.

    Returns:
        ``{"s_measure", "f_mean", "e_mean", "mae"}``, or None where nothing was published.
    """
    for row in published_rows("table4"):
        if (row["attention"], row["recipe"], row["dataset"]) == (attention, recipe, dataset):
            return {key: float(row[key]) for key in ("s_measure", "f_mean", "e_mean", "mae")}
    return None
