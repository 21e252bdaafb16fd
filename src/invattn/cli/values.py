"""Checked values of options from the command line or a file, or one line that says what is wrong."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from invattn._names import check_name


class InvalidValue(argparse.ArgumentTypeError, ValueError):
    """A value that an option does not take; argparse shows the first kind as it is, jsonargparse the second."""


def one_of(known: Sequence[str], *, what: str) -> Callable[[object], str]:
    """Return a parser of one name out of ``known``; it suggests the nearest for any other."""

    def parse(value: object) -> str:
        try:
            return check_name(str(value), known, what=what)
        except ValueError as error:
            raise InvalidValue(str(error)) from None

    return parse


def some_of(known: Sequence[str], *, what: str) -> Callable[[object], str]:
    """Return a parser of a comma-separated list of different names out of ``known``, or ``all``."""
    parse_one = one_of((*known, "all"), what=what)

    def parse(value: object) -> str:
        names = [parse_one(part.strip()) for part in str(value).split(",")]
        if len(set(names)) < len(names):
            raise InvalidValue(f"{value} names one {what} twice; give each once.")
        if "all" in names and len(names) > 1:
            raise InvalidValue(f"{value} mixes 'all' with names; give either.")
        return ",".join(names)

    return parse


def whole_number(minimum: int) -> Callable[[object], int]:
    """Return a parser of whole numbers that are at least ``minimum``."""

    def parse(value: object) -> int:
        text = str(value)
        if not text.isascii() or not text.removeprefix("-").isdigit() or int(text) < minimum:
            raise InvalidValue(f"expected a whole number, at least {minimum}; got {value!r}.")
        return int(text)

    return parse


def even_number(minimum: int) -> Callable[[object], int]:
    """Return a parser of even numbers that are at least ``minimum``."""
    parse_any = whole_number(minimum)

    def parse(value: object) -> int:
        number = parse_any(value)
        if number % 2:
            raise InvalidValue(f"expected an even number; got {value!r}.")
        return number

    return parse


def number_from(low: float, high: float) -> Callable[[object], float]:
    """Return a parser of numbers that are at least ``low`` and below ``high``."""

    def parse(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not low <= number < high:
            raise InvalidValue(f"expected a number, at least {low:g} and below {high:g}; got {value!r}.")
        return number

    return parse


def number_between(low: float, high: float) -> Callable[[object], float]:
    """Return a parser of numbers strictly between ``low`` and ``high``."""
    bounds = f"above {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}, neither included"

    def parse(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not low < number < high:
            raise InvalidValue(f"expected a number {bounds}; got {value!r}.")
        return number

    return parse


def numbers(minimum: int) -> Callable[[object], tuple[int, ...]]:
    """Return a parser of whole numbers separated by commas, each at least ``minimum``; a list is valid too."""
    parse_one = whole_number(minimum)

    def parse(value: object) -> tuple[int, ...]:
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(parse_one(part if isinstance(part, int) else str(part).strip()) for part in parts)

    return parse


def yes_or_no(value: object) -> bool:
    """Parse yes, no, true or false, however they are capitalised."""
    known = {"yes": True, "true": True, "no": False, "false": False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise InvalidValue(f"expected yes or no; got {value!r}.") from None


def numbers_between(low: float, high: float) -> Callable[[object], tuple[float, ...]]:
    """Return a parser of numbers separated by commas, strictly between ``low`` and ``high``; a list is valid too."""
    parse_one = number_between(low, high)

    def parse(value: object) -> tuple[float, ...]:
        parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(parse_one(part if isinstance(part, float) else str(part).strip()) for part in parts)

    return parse
