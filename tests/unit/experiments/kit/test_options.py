import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest

from invattn.cli.main import build_parser
from invattn.experiments.kit.options import (
    InvalidValue,
    Mark,
    Options,
    Positive,
    Switch,
    command_line,
    name_or_folder,
    number_between,
    number_from,
    one_of,
    options_of,
    some_of,
    split_names,
    whole_number,
)
from invattn.experiments.kit.parser import Command

COLOURS = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("parse", "given", "value"),
    [
        (one_of(COLOURS, what="colour"), "red", "red"),
        (one_of(("32", "original"), what="size"), 32, "32"),
        (some_of(COLOURS, what="colour"), "blue", "blue"),
        (some_of(COLOURS, what="colour"), "blue, red", "blue,red"),
        (some_of(COLOURS, what="colour"), "all", "all"),
        (whole_number(0), "0", 0),
        (whole_number(1), 7, 7),
        (whole_number(0), "9223372036854775807", 2**63 - 1),
        (number_between(0, 1), "0.5", 0.5),
        (number_between(0, math.inf), "3e-3", 0.003),
        (number_between(0, 1, closed=True), "1", 1.0),
        (number_from(0, 1, closed=True), 0, 0.0),
    ],
)
def test_valid_values(parse: Callable[[object], object], given: object, value: object) -> None:
    assert parse(given) == value


@pytest.mark.parametrize(
    ("parse", "given", "message"),
    [
        (one_of(COLOURS, what="colour"), "gren", "unknown colour 'gren'. Did you mean 'green'?"),
        (one_of(COLOURS, what="colour"), 3, "Known: red, green, blue"),
        (some_of(COLOURS, what="colour"), "red,gren", "Did you mean 'green'?"),
        (some_of(COLOURS, what="colour"), "red,", "unknown colour ''"),
        (some_of(COLOURS, what="colour"), "red,red", "twice"),
        (some_of(COLOURS, what="colour"), "red,all", "mixes 'all' with names"),
        (whole_number(1), "0", "at least 1; got '0'"),
        (whole_number(0), "-1", "at least 0; got '-1'"),
        (whole_number(1), "2.5", "whole number"),
        (whole_number(1), "many", "whole number"),
        (whole_number(0), True, "whole number"),
        (number_from(0, 1), "1", "at least 0 and below 1; got '1'"),
        (number_from(0, 1), "-0.1", "at least 0 and below 1; got '-0.1'"),
        (number_from(0, 1), "half", "got 'half'"),
        (number_from(0, 1, closed=True), "2", "at least 0 and at most 1; got '2'"),
        (number_between(0, 1, closed=True), "0", "above 0 and at most 1; got '0'"),
        (whole_number(2, multiple=2), "3", "expected an even number; got '3'"),
        (number_between(0, 1), "1", "between 0 and 1, neither included; got '1'"),
        (number_between(0, 1), "nan", "got 'nan'"),
        (number_between(0, math.inf), "inf", "above 0; got 'inf'"),
        (number_between(0, math.inf), True, "got True"),
    ],
)
def test_invalid_values_say_what_was_expected(parse: Callable[[object], object], given: object, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(given)
    assert message in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class Paint(Options):
    """Paint.

    Attributes:
        layers: How often, a whole number, see :data:`invattn.KINDS`.
        thickness: Of a layer
            in mm.
    """

    layers: int = 0
    thickness: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Fence(Paint):
    """A fence.

    Attributes:
        colours: Of the boards.
        boards: Widths of the boards.
        plan: SVG of the fence.
        dry: Wait for it.
    """

    NARROWED: ClassVar = {"thickness": Annotated[Positive, "MM"]}

    plan: Annotated[Path, Mark.UNSTORED]
    colours: Annotated[str, some_of(COLOURS, what="colour"), "COLOUR,...", Mark.NOT_OF_A_CELL] = "all"
    boards: tuple[int, ...] = (10, 20)
    dry: Annotated[Switch, Mark.UNSTORED] = False
    owner: str | None = None


def test_a_dataclass_states_each_option_once() -> None:
    known = options_of(Fence)
    assert list(known) == ["plan", "colours", "boards", "dry", "owner", "layers", "thickness"]
    assert known["colours"].help == "red, green, blue: of the boards"
    assert known["layers"].help == "how often, a whole number, see invattn.KINDS"
    assert known["thickness"].help == "of a layer in mm"
    assert known["plan"].help == "SVG of the fence"
    assert [known[name].reader.metavar for name in known] == ["DIR", "COLOUR,...", "N,...", "yes|no", "TEXT", "N", "MM"]
    assert known["plan"].default is MISSING
    assert known["plan"].value("x") == Path("x")
    assert known["boards"].value([1, 2]) == (1, 2)
    assert (known["boards"].group, known["layers"].group) == (Fence, Paint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colours": "gren"}, "colours: unknown colour 'gren'. Did you mean 'green'"),
        ({"layers": -1}, "layers: expected a whole number, at least 0; got -1"),
        ({"thickness": 0.0}, "thickness: expected a number above 0; got 0.0"),
        ({"thickness": math.nan}, "thickness: expected a number above 0; got nan"),
        ({"boards": ()}, "boards: expected at least one value"),
        ({"boards": (1, 0)}, "boards: expected a whole number, at least 1; got 0"),
    ],
)
def test_values_are_checked_by_the_types_of_the_fields(changes: dict[str, Any], message: str) -> None:
    Fence(plan=Path("plan"))
    with pytest.raises(ValueError, match=message):
        Fence(plan=Path("plan"), **changes)


def test_settings_and_the_command_come_from_the_fields() -> None:
    fence = Fence(plan=Path("plan"), dry=True)
    cell = {"boards": "10,20", "owner": None, "layers": 0, "thickness": 1.0}
    assert fence.settings(of_a_cell=True) == cell
    assert fence.settings() == {"colours": "all"} | cell
    line = command_line("paint", fence.settings() | {"dry": ""})
    assert line == "invattn paint --colours all --boards 10,20 --layers 0 --thickness 1.0 --dry --output OUT"


def test_names_of_a_list() -> None:
    assert split_names("all", COLOURS, everything=COLOURS[:2], what="colour") == ("red", "green")
    assert split_names("blue, red", COLOURS, everything=COLOURS, what="colour") == ("blue", "red")
    with pytest.raises(ValueError, match="unknown colour 'gren'"):
        split_names("gren", COLOURS, everything=COLOURS, what="colour")


def test_a_name_or_a_folder(tmp_path: Path) -> None:
    reader = name_or_folder(COLOURS, what="colour")
    assert [reader("red"), reader(tmp_path)] == ["red", str(tmp_path)]
    with pytest.raises(InvalidValue, match="unknown colour ''"):
        reader("")


def test_every_option_of_every_command_has_words_of_its_own() -> None:
    commands = [entry for command in build_parser()[1].values() for entry in command.actions or (command,)]
    assert len(commands) == 10
    for command in commands:
        assert isinstance(command, Command)
        for option in options_of(command.options).values():
            assert option.help, f"{command.name}: {option.name}"
