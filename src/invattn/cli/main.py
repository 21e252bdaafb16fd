"""The command ``invattn``: parse, call, print, and turn expected errors into one line."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from invattn._errors import InvAttnError
from invattn._version import __version__

if TYPE_CHECKING:
    from invattn.experiments.kit.parser import Command, CommandGroup, OneLineParser

FAILURE = 1
INTERRUPTED = 130

_INSTALL = "install the extra: pip install 'invertible-attention[experiments]'"

_REMEDIES = {
    errno.ENOSPC: "free some space, then continue with --resume.",
    errno.EDQUOT: "free some of your quota, then continue with --resume.",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), then continue with --resume.",
    errno.EACCES: "check the permissions, or choose another folder.",
    errno.EPERM: "check the permissions, or choose another folder.",
    errno.EROFS: "choose a folder that can be written.",
    errno.ENOTDIR: "a part of the path is a file; choose another folder.",
    errno.ENOENT: "check the path.",
}


def explain_os_error(error: OSError) -> str:
    """Return what the system refused, where, and what to do."""
    place = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "check that the path exists and can be read and written.")
    return f"{place}{reason}; {remedy}"


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """Return how to install a missing library, or None if the missing module is one of ours."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "invattn"):
        return None
    return f"this command needs {package}, which is not installed; {_INSTALL}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None takes those of the process.

    Returns:
        The exit status: 0 on success, 1 on an expected error, 130 after Ctrl-C.

    Raises:
        SystemExit: After ``--help`` and its like with status 0, on a wrong command line with status 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"invattn {__version__}")
        return 0
    try:
        _run(arguments)
    except KeyboardInterrupt as stop:
        text = str(stop) or "interrupted: run the same command again; long work continues with --resume."
        return _end(f"\ninvattn: {' '.join(text.split())}", status=INTERRUPTED)
    except InvAttnError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(explain_os_error(error))
    except ModuleNotFoundError as error:
        advice = explain_missing(error)
        if advice is None:
            raise
        return _fail(advice)
    return 0


def _fail(message: str) -> int:
    return _end(f"invattn: error: {' '.join(message.split())}", status=FAILURE)


def _end(line: str, *, status: int) -> int:
    sys.stderr.write(f"{line}\n")
    return status


def _run(arguments: list[str]) -> None:
    parser, commands = build_parser()
    if not arguments:
        parser.error("no command was given; see `invattn --help`.")
    options = parser.parse_args(arguments)
    commands[options.command].execute(options[options.command])


def build_parser() -> tuple[OneLineParser, dict[str, Command | CommandGroup]]:
    """Return the parser and the commands by name; what is imported here needs more than torch."""
    from invattn.cli import certify, report
    from invattn.experiments.camouflage import command as camouflage
    from invattn.experiments.density import command as density
    from invattn.experiments.diagnosis import command as diagnosis
    from invattn.experiments.kit.parser import OneLineParser, add_commands
    from invattn.experiments.reconstruction import command as reconstruction

    modules = (reconstruction, density, camouflage, certify, diagnosis, report)
    commands: dict[str, Command | CommandGroup] = {module.COMMAND.name: module.COMMAND for module in modules}
    parser = OneLineParser(
        description="Attention blocks with an inverse: experiments and reports.",
        epilog="`invattn COMMAND --help` lists a command's options.",
        version=f"invattn {__version__}",
    )
    add_commands(parser, list(commands.values()), dest="command")
    return parser, commands
