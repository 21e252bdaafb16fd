"""An argument parser whose errors are one line with the nearest right word."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import ActionYesNo, Namespace

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
