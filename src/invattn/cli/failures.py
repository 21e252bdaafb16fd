"""What the user is told, and which exit status the command has, when something goes wrong that is not our bug."""

from __future__ import annotations

import errno
import sys

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
