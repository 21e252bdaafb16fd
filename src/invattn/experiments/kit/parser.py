"""An argument parser whose errors are one line with the nearest right word."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import ActionYesNo, Namespace

from invattn._errors import check_name


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


USAGE_ERROR = 2


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows a default value only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class OneLineParser(jsonargparse.ArgumentParser):
    """jsonargparse's typed parser: no abbreviations, and every error is one line with exit status 2.

    Args:
        description: What the command does.
        version: Printed by ``--version``; None for no such option.
        epilog: Shown below the help.
    """

    def __init__(self, *, description: str, version: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            prog="invattn",
            description=description,
            version=version,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def validate(self, cfg: Namespace, *arguments: Any, **options: Any) -> None:
        """Check values, and before them that a configuration file has known keys, at any depth of commands."""
        self._check_keys(cfg)
        super().validate(cfg, *arguments, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line that says what is wrong with the command line, and exit with status 2."""
        sys.stderr.write(f"invattn: error: {self._reword(' '.join(message.split()))}\n")
        raise SystemExit(USAGE_ERROR) from ex

    def _reword(self, message: str) -> str:
        """Say a message of argparse or jsonargparse in the words of the command line; others pass as they are."""
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            return self._unknown_argument(found[1])
        if found := re.search(r"does not accept option '([^']+)'", message):
            return f"unknown key {found[1]!r} in the configuration file.{suggest(found[1], self._keys())}"
        if found := re.match(r"argument \S+: invalid choice: '([^']*)' \(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", found[2])
            hint = suggest(found[1], known) or " Options stand after the command."
            return f"unknown command {found[1]!r}.{hint} Known: {', '.join(known)}."
        if found := re.match(r"the following arguments are required: (?:\w+\.)*(\w+)", message):
            commands = " ".join(["invattn", *message.rpartition(" ")[2].split(".")[:-1]])
            return f"{self._written(found[1])} is required; see `{commands} --help`."
        if found := re.match(r'expected "((?:\w+\.)*)\w+" to be one of', message):
            commands = " ".join(["invattn", *found[1].split(".")[:-1]])
            return f"no command was given; see `{commands} --help`."
        if found := re.match(r"Value not boolean: (.*?)\.?$", message):
            switches = [action.option_strings[0] for action in self._actions if isinstance(action, ActionYesNo)]
            return f"{' or '.join(switches)}: expected true or false; got {found[1]}."
        if found := re.match(r'Parser key "(?:\w+\.)*(\w+)": (.*)', message):
            return f"{self._written(found[1])}: {found[2]}"
        return re.sub(r"^argument (--\S+):", r"\1:", message)

    def _unknown_argument(self, argument: str) -> str:
        if not argument.startswith("-"):
            return f"unexpected argument {argument!r}; every value follows the option that it belongs to."
        name = argument.split("=", 1)[0]
        return f"unknown option {name}.{suggest(name, sorted(self._options()))}"

    def _written(self, key: str) -> str:
        """Return a key as it is written on the command line."""
        option = "--" + key.replace("_", "-")
        return option if option in self._options() else key.upper()

    def _check_keys(self, values: Namespace) -> None:
        """End with one line if a key is no option; jsonargparse itself fails at keys of a command within a command."""
        commands = self._subcommands_action
        chosen = None if commands is None else values.get(commands.dest)
        if commands is not None and chosen is not None:
            parser = commands.choices[chosen]
            if isinstance(parser, OneLineParser) and isinstance(values.get(chosen), Namespace):
                parser._check_keys(values[chosen])
            return
        known = {action.dest for action in self._actions}
        for key in vars(values):
            if key not in known and not key.startswith("__"):
                self.error(f"does not accept option '{key}'")

    def _keys(self) -> list[str]:
        return [option.removeprefix("--").replace("-", "_") for option in sorted(self._options())]

    def _options(self) -> set[str]:
        """Return the options of this parser and of its subcommands."""
        options = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action.choices, dict):
                options.update(*(parser._options() for parser in action.choices.values()))
        return options


def suggest(word: str, known: Sequence[str]) -> str:
    """Return `` Did you mean ...?`` for the nearest known word, or nothing if none is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""
