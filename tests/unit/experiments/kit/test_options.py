import math
from collections.abc import Callable

import pytest

from invattn.experiments.kit.options import InvalidValue, number_between, number_from, one_of, some_of, whole_number

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
