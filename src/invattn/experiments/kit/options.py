"""Options of commands: a dataclass states each one once, with its type, default and words; all else is read there.

A field's type says how its text is read: ``steps: Annotated[int, whole_number(1)]``, or shorter ``steps: Count``; its
entry in the ``Attributes:`` section of the class is the help text. :mod:`invattn.experiments.kit.parser` makes the
parser of it.
"""

from __future__ import annotations

import argparse
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum, auto
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from invattn._errors import check_name


class InvalidValue(argparse.ArgumentTypeError, ValueError):
    """A value that an option does not take; argparse shows the first kind as it is, jsonargparse the second."""


class Mark(Enum):
    """What else is true of an option."""

    POSITIONAL = auto()
    """It is written without its name."""
    SWITCH = auto()
    """It is written ``--name`` or ``--no-name``, without a value."""
    REPEATED = auto()
    """It may be written more than once."""
    UNSTORED = auto()
    """No number depends on it: results do not store it."""
    NOT_OF_A_CELL = auto()
    """It chooses cells, or what they run on: no number of one cell depends on it."""


@dataclass(frozen=True)
class Reader:
    """How the value of an option is read.

    Attributes:
        parse: Text, or a value of a configuration file -> value; raises :class:`InvalidValue`.
        metavar: Stands for the value in a help text.
        known: The valid names, where there are few.
    """

    parse: Callable[[object], Any]
    metavar: str
    known: tuple[str, ...] = ()

    def __call__(self, value: object) -> Any:
        """Return the value that is meant."""
        return self.parse(value)


def one_of(known: Sequence[str], *, what: str) -> Reader:
    """Return a reader of one name out of ``known``; it suggests the nearest for any other."""

    def parse(value: object) -> str:
        try:
            return check_name(str(value), known, what=what)
        except ValueError as error:
            raise InvalidValue(str(error)) from None

    return Reader(parse, "NAME", tuple(known))


def name_or_folder(known: Sequence[str], *, what: str) -> Reader:
    """Return a reader of one name out of ``known``, or of the path of an existing folder."""
    parse_name = one_of(known, what=what)

    def parse(value: object) -> str:
        name = str(value)
        is_folder = name not in known and name != "" and Path(name).is_dir()
        return name if is_folder else str(parse_name(name))

    return Reader(parse, "NAME|DIR")


def some_of(known: Sequence[str], *, what: str) -> Reader:
    """Return a reader of a comma-separated list of different names out of ``known``, or ``all``."""
    parse_one = one_of((*known, "all"), what=what)

    def parse(value: object) -> str:
        names = [parse_one(part.strip()) for part in str(value).split(",")]
        if len(set(names)) < len(names):
            raise InvalidValue(f"{value} names one {what} twice; give each once.")
        if "all" in names and len(names) > 1:
            raise InvalidValue(f"{value} mixes 'all' with names; give either.")
        return ",".join(names)

    return Reader(parse, "NAME,...", tuple(known))


def whole_number(minimum: int, *, multiple: int = 1) -> Reader:
    """Return a reader of whole numbers that are at least ``minimum``; ``multiple=2`` takes even ones alone."""

    def parse(value: object) -> int:
        text = str(value)
        if not text.isascii() or not text.removeprefix("-").isdigit() or int(text) < minimum:
            raise InvalidValue(f"expected a whole number, at least {minimum}; got {value!r}.")
        if int(text) % multiple:
            raise InvalidValue(f"expected an even number; got {value!r}.")
        return int(text)

    return Reader(parse, "N")


def number_from(low: float, high: float, *, closed: bool = False) -> Reader:
    """Return a reader of numbers that are at least ``low`` and below ``high``, or at most, if ``closed``."""
    bounds = f", at least {low:g} and {'at most' if closed else 'below'} {high:g}"
    return _number(
        lambda number: low <= number < high or (closed and number == high), f"expected a number{bounds}; got"
    )


def number_between(low: float, high: float, *, closed: bool = False) -> Reader:
    """Return a reader of numbers above ``low`` and below ``high``, or at most ``high``, if ``closed``."""
    bounds = f"between {low:g} and {high:g}, neither included"
    if math.isinf(high) or closed:
        bounds = f"above {low:g}" + (f" and at most {high:g}" if closed else "")
    return _number(
        lambda number: low < number < high or (closed and number == high), f"expected a number {bounds}; got"
    )


def _number(is_valid: Callable[[float], bool], complaint: str) -> Reader:
    def parse(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not is_valid(number):
            raise InvalidValue(f"{complaint} {value!r}.")
        return number

    return Reader(parse, "X")


def list_of(reader: Reader) -> Reader:
    """Return a reader of values separated by commas; a list is valid too."""

    def parse(value: object) -> tuple[Any, ...]:
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        if not parts:
            raise InvalidValue("expected at least one value; got none.")
        return tuple(reader(part.strip() if isinstance(part, str) else part) for part in parts)

    return Reader(parse, f"{reader.metavar},...")


def parse_yes_or_no(value: object) -> bool:
    """Parse yes, no, true or false, however they are capitalised."""
    known = {"yes": True, "true": True, "no": False, "false": False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise InvalidValue(f"expected yes or no; got {value!r}.") from None


ORIGINAL = "original"
TRAIN_SIZE = TEST_SIZE = 1000
"""Images of the reconstruction experiment, and of what is diagnosed with its models."""

Count = Annotated[int, whole_number(1)]
Positive = Annotated[float, number_between(0.0, math.inf)]
Share = Annotated[float, number_between(0.0, 1.0)]
Switch = Annotated[bool, Mark.SWITCH]
ModelFolder = Annotated[Path, Mark.POSITIONAL, "MODEL"]

_USUAL: Mapping[object, Reader] = {
    bool: Reader(parse_yes_or_no, "yes|no"),
    int: whole_number(0),
    float: _number(math.isfinite, "expected a finite number; got"),
    str: Reader(str, "TEXT"),
    Path: Reader(str, "DIR"),
    tuple[int, ...]: list_of(whole_number(1)),
    tuple[Path, ...]: Reader(str, "DIR"),
}
"""Type of a field -> reader, for fields that name none."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of dataclasses of options: checks every value, and says what results store of them.

    Raises:
        ValueError: If a value is out of range or unknown; one line that begins with the option's name.
    """

    def __post_init__(self) -> None:
        for option in options_of(type(self)).values():
            value = getattr(self, option.name)
            if value is not None and value != option.default and Mark.REPEATED not in option.marks:
                try:
                    option.reader(value)
                except InvalidValue as error:
                    raise ValueError(f"{option.name}: {error}") from None

    def settings(self, *, of_a_cell: bool = False) -> dict[str, Any]:
        """Return every option that may change the numbers, no paths; lists as the command line takes them.

        Args:
            of_a_cell: Without those that choose cells, or what they run on.
        """
        left_out = {Mark.UNSTORED, *([Mark.NOT_OF_A_CELL] if of_a_cell else [])}
        names = [option.name for option in options_of(type(self)).values() if not option.marks & left_out]
        values = {name: getattr(self, name) for name in names}
        return {n: ",".join(map(str, v)) if isinstance(v, tuple) else v for n, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """Where results go.

    Attributes:
        output: Folder to write.
        resume: Continue the run stopped in OUTPUT.
    """

    output: Annotated[Path, Mark.UNSTORED]
    resume: Annotated[Switch, Mark.UNSTORED] = False


@dataclass(frozen=True, kw_only=True)
class PhotographOptions(Options):
    """Images of the reconstruction experiment.

    Attributes:
        data: photos, cifar10, svhn, celeba or a folder of images.
        data_root: Where cifar10, svhn or celeba lie as published; without it: download.
        image_size: Side in pixels.
        seed: Decides everything that is random.
    """

    data: Annotated[str, "NAME|DIR", Mark.UNSTORED] = "photos"
    data_root: Annotated[Path | None, Mark.UNSTORED] = None
    image_size: Annotated[str, one_of(("32", ORIGINAL), what="image size"), f"32|{ORIGINAL}"] = "32"
    seed: int = 0

    @property
    def original(self) -> bool:
        """Whether images keep their size."""
        return self.image_size == ORIGINAL

    def pixels(self) -> int | Literal["original"]:
        """Return the image size as the data layer takes it."""
        return "original" if self.original else int(self.image_size)


@dataclass(frozen=True)
class Option:
    """One option of a command, as a field of its dataclass states it.

    Attributes:
        name: Of the field.
        reader: Reads its value.
        is_path: Whether its value is a path.
        several: Whether it has several values.
        marks: What else is true of it.
        default: MISSING for one that must be given.
        help: What its class says of it.
        group: The class that states it.
    """

    name: str
    reader: Reader
    is_path: bool
    several: bool
    marks: frozenset[Mark]
    default: Any
    help: str
    group: type

    def value(self, read: Any) -> Any:
        """Return what was read as the field takes it."""
        if self.several:
            return tuple(Path(part) if self.is_path else part for part in read)
        return Path(read) if self.is_path else read


def options_of(kind: type) -> dict[str, Option]:
    """Return the options that the fields of a dataclass state, by name: first those of the class, then its bases'.

    A class attribute ``NARROWED`` maps names to more narrow types, for fields of a base that is none of ours.
    """
    hints = get_type_hints(kind, include_extras=True) | getattr(kind, "NARROWED", {})
    known = {field.name: field.default for field in fields(kind)}
    found: dict[str, Option] = {}
    texts = _attribute_texts(kind)
    for base in kind.__mro__:
        for name in inspect.get_annotations(base):
            if name in known:
                found.setdefault(name, _option(name, hints[name], known[name], texts.get(name, ""), base))
    return found


def _option(name: str, hint: object, default: object, text: str, group: type) -> Option:
    plain, notes = _unwrap(hint)
    reader = [_USUAL.get(plain), *(note for note in notes if isinstance(note, Reader))][-1]
    assert reader is not None, f"the type of {name} does not say how it is read"
    reader = replace(reader, metavar=[reader.metavar, *(note for note in notes if isinstance(note, str))][-1])
    if not all(known in f"{text} {reader.metavar}" for known in reader.known):
        text = f"{', '.join(reader.known)}: {text}"
    marks = frozenset(note for note in notes if isinstance(note, Mark))
    is_path = plain in (Path, tuple[Path, ...])
    return Option(name, reader, is_path, get_origin(plain) is tuple, marks, default, text, group)


def _unwrap(hint: object) -> tuple[object, list[object]]:
    """Return the type inside Annotated and Optional, and all that they note of it, the outermost last."""
    if get_origin(hint) is Annotated:
        plain, notes = _unwrap(get_args(hint)[0])
        return plain, [*notes, *get_args(hint)[1:]]
    inner = [part for part in get_args(hint) if part is not NoneType]
    return _unwrap(inner[0]) if len(inner) == 1 and len(get_args(hint)) == 2 else (hint, [])


def _attribute_texts(kind: type) -> dict[str, str]:
    """Return what the ``Attributes:`` sections of a class and of its bases say, in the form of a help text."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(r"^Attributes:\n((?: .*\n?|\n)*)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        for name, text in re.findall(r"^    (\w+): ((?:.*\n?)(?:     .*\n?)*)", section[1] if section else "", re.M):
            words = re.sub(r":\w+:`|`", "", " ".join(text.split())).removesuffix(".")
            found[name] = words if words[1:2].isupper() else words[:1].lower() + words[1:]
    return found


def command_line(command: str, values: Mapping[str, Any]) -> str:
    """Return a command with its options; None is not written, and "" stands for no value after the name."""
    words = [f"--{name.replace('_', '-')} {value}".rstrip() for name, value in values.items() if value is not None]
    return " ".join([f"invattn {command}", *words, "--output OUT"])


def split_names(text: str, known: Sequence[str], *, everything: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list, or ``everything`` for ``all``.

    Raises:
        ValueError: If a name is unknown.
    """
    if text == "all":
        return tuple(everything)
    return tuple(check_name(part.strip(), (*known, "all"), what=what) for part in text.split(","))
