"""The command ``invattn``: parse, call, print, and turn expected errors into one line."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from invattn._errors import InvAttnError
from invattn._version import __version__

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


def fail(message: str) -> int:
    """Print one line of error and return the exit status."""
    sys.stderr.write(f"invattn: error: {' '.join(message.split())}\n")
    return FAILURE


def interrupted(message: str) -> int:
    """Print one line after Ctrl-C and return the exit status."""
    text = message or "interrupted: run the same command again; long work continues with --resume."
    sys.stderr.write(f"\ninvattn: {' '.join(text.split())}\n")
    return INTERRUPTED


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


if TYPE_CHECKING:
    from jsonargparse import Namespace

    from invattn.experiments.kit.parser import OneLineParser


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
        return interrupted(str(stop))
    except InvAttnError as error:
        return fail(str(error))
    except OSError as error:
        return fail(explain_os_error(error))
    except ModuleNotFoundError as error:
        advice = explain_missing(error)
        if advice is None:
            raise
        return fail(advice)
    return 0


def _run(arguments: list[str]) -> None:
    parser, commands = _build_parser()
    if not arguments:
        parser.error("no command was given; see `invattn --help`.")
    options = parser.parse_args(arguments)
    commands[options.command](options[options.command])


def _build_parser() -> tuple[OneLineParser, dict[str, Callable[[Namespace], None]]]:
    """Return the parser and the function of each command; imported here so that ``--version`` needs torch alone."""
    from invattn.cli import certify, report
    from invattn.experiments.camouflage import command as camouflage
    from invattn.experiments.density import command as density
    from invattn.experiments.diagnosis import command as diagnose
    from invattn.experiments.kit.parser import OneLineParser
    from invattn.experiments.reconstruction import command as reconstruct

    parser = OneLineParser(
        description="Attention blocks with an inverse: experiments and reports.",
        epilog="`invattn COMMAND --help` lists a command's options.",
        version=f"invattn {__version__}",
    )
    commands = parser.add_subcommands(required=True, dest="command", metavar="COMMAND")
    commands.add_subcommand("reconstruct", reconstruct.reconstruct_parser(), help="invert attention on real images")
    flows = density.density_parser()
    commands.add_subcommand("density", flows, help="train, evaluate and sample normalizing flows")
    density.add_actions(flows)
    detection = camouflage.camouflage_parser()
    commands.add_subcommand("camouflage", detection, help="find camouflaged objects with each attention module")
    camouflage.add_actions(detection)
    commands.add_subcommand("certify", certify.certify_parser(), help="verify the certificate of a stored model")
    commands.add_subcommand(
        "diagnose", diagnose.diagnose_parser(), help="find what the inverse of a model loses, and why"
    )
    commands.add_subcommand("report", report.report_parser(), help="write the page of a finished run anew")
    functions: dict[str, Callable[[Namespace], None]] = {
        "reconstruct": reconstruct.execute,
        "density": density.execute,
        "camouflage": camouflage.execute,
        "certify": certify.execute,
        "diagnose": diagnose.execute,
        "report": report.execute,
    }
    return parser, functions
