"""The command line: commands made of dataclasses of options, and a parser whose errors are one line."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import ActionYesNo, Namespace

from invattn._errors import DataError
from invattn.experiments.kit.options import Mark, Option, options_of

USAGE_ERROR = 2


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with options.

    Attributes:
        name: As it is written.
        summary: A few words for the list of commands.
        description: What it does.
        epilog: Shown below its help.
        options: The dataclass of its options.
        run: Does the work.
        build: Returns the options that ``run`` takes from those that were given; None for ``options`` itself.
        fixed: Where ``build`` decides what is not given: the options whose default is that of the class all the same.
        config_file: Whether options may come from a file.
    """

    name: str
    summary: str
    description: str
    epilog: str | None = None
    options: type[Any]
    run: Callable[[Any], None]
    build: Callable[[Mapping[str, Any]], Any] | None = None
    fixed: tuple[str, ...] = ()
    config_file: bool = False

    def parser(self) -> OneLineParser:
        """Return the parser of its options."""
        parser = OneLineParser(description=self.description, epilog=self.epilog)
        if self.config_file:
            parser.add_argument("--config", action="config", metavar="FILE.yaml", help="read options from a YAML file")
        groups: dict[type, Any] = {self.options: parser}
        for option in options_of(self.options).values():
            if option.group not in groups:
                title = (option.group.__doc__ or "").partition("\n")[0].rstrip(".")
                groups[option.group] = parser.add_argument_group(title)
            _add(groups[option.group], option, decided=self.build is not None and option.name not in self.fixed)
        return parser

    def read(self, given: Namespace) -> Any:
        """Return the options that ``run`` takes.

        Raises:
            DataError: If they do not fit together.
        """
        known = options_of(self.options)
        values = {name: value for name, value in vars(given).items() if name in known and value is not None}
        try:
            given_options = {name: known[name].value(value) for name, value in values.items()}
            return self.options(**given_options) if self.build is None else self.build(given_options)
        except ValueError as error:
            raise DataError(str(error)) from None

    @property
    def actions(self) -> tuple[Command, ...]:
        """Commands within it: none."""
        return ()

    def execute(self, given: Namespace) -> None:
        """Do the work."""
        self.run(self.read(given))


@dataclass(frozen=True, kw_only=True)
class CommandGroup:
    """A command that has actions, commands themselves, and no options.

    Attributes:
        name: As it is written.
        summary: A few words for the list of commands.
        description: What it is for.
        actions: Commands within it.
    """

    name: str
    summary: str
    description: str
    actions: tuple[Command, ...]

    def parser(self) -> OneLineParser:
        """Return its parser, still without the actions."""
        return OneLineParser(description=self.description)

    def execute(self, given: Namespace) -> None:
        """Do the work of the action that was chosen."""
        chosen = {action.name: action for action in self.actions}[given.action]
        chosen.execute(given[given.action])


def add_commands(parser: OneLineParser, commands: Sequence[Command | CommandGroup], *, dest: str) -> None:
    """Add commands, and their actions: each to a parser that is a subcommand already, as jsonargparse wants it."""
    chosen = parser.add_subcommands(required=True, dest=dest, metavar=dest.upper())
    for command in commands:
        own = command.parser()
        chosen.add_subcommand(command.name, own, help=command.summary)
        if command.actions:
            add_commands(own, command.actions, dest="action")


def _add(parser: Any, option: Option, *, decided: bool) -> None:
    """Add an option to a parser, or to a group of its; ``decided``: what is not given is decided elsewhere."""
    written = "--" + option.name.replace("_", "-")
    required = option.default is MISSING
    default = None if required or decided else option.default
    if Mark.SWITCH in option.marks:
        parser.add_argument(written, action=ActionYesNo(no_prefix="no-"), default=default or False, help=option.help)
        return
    more: dict[str, Any] = {"type": option.reader.parse, "metavar": option.reader.metavar}
    if Mark.POSITIONAL in option.marks:
        parser.add_argument(option.name, help=option.help, **more | ({"nargs": "+"} if option.several else {}))
        return
    if Mark.REPEATED in option.marks:
        more |= {"action": "append"}
    shown = str(default) if isinstance(default, Path) else default
    words = option.help + (" (required)" if required else "")
    parser.add_argument(written, default=shown, required=required, help=words.replace("%", "%%"), **more)


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
