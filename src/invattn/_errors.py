"""The exceptions that invattn raises for its users."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class InvAttnError(Exception):
    """Base class of every error that invattn raises on purpose."""


class ConvergenceError(InvAttnError):
    """An inverse did not reach its tolerance for at least one sample."""


class CertificateError(InvAttnError):
    """A proven Lipschitz bound was asked for where there is none, or a stored one does not hold."""


class DataError(InvAttnError):
    """Input data or a file is missing, damaged or of the wrong kind."""


def check_name(name: str, known: Sequence[str], *, what: str) -> str:
    """Return ``name`` if it is known.

    Args:
        name: The name that was given.
        known: Every valid name.
        what: What the name stands for, in words, for the message.

    Raises:
        ValueError: If the name is unknown; the message lists the known ones and the nearest.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}.")
