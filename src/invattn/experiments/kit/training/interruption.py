"""Ctrl-C, and the end of the time that the user gave, that wait for the end of the step."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from invattn._errors import InvAttnError


class Interrupted(InvAttnError):
    """The user stopped the work, or its time is over; what is needed to continue it is on the disk."""


class Interruption:
    """Whether to stop.

    Args:
        deadline: When to stop by itself, on the clock of ``time.monotonic``.
    """

    def __init__(self, *, deadline: float = math.inf) -> None:
        self._deadline = deadline
        self._asked = False

    @property
    def requested(self) -> bool:
        """True after the first Ctrl-C, and from the deadline on."""
        return self._asked or time.monotonic() >= self._deadline

    def request(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGINT: note the first one, raise KeyboardInterrupt at the second."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def watch_interrupts(*, deadline: float = math.inf) -> Iterator[Interruption]:
    """Replace the effect of Ctrl-C inside the block: the first is noted, the second raises KeyboardInterrupt.

    An exception in the middle of an optimizer step leaves weights that no run without interruption ever has; noting the
    signal lets the trainer finish its step and save. Signals reach only the main thread of Python: in any other
    thread nothing is replaced.

    Args:
        deadline: When to stop without being asked, on the clock of ``time.monotonic``.

    Yields:
        The object that says whether to stop.
    """
    interruption = Interruption(deadline=deadline)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    previous = signal.signal(signal.SIGINT, interruption.request)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
