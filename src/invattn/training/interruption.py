"""Ctrl-C that waits for the end of the step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from invattn._errors import InvAttnError


class Interrupted(InvAttnError):
    """The user stopped the work; what is needed to continue it is on the disk."""


class Interruption:
    """Whether the user asked to stop.

    Attributes:
        requested: True after the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.requested = False

    def request(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGINT: note the first one, raise KeyboardInterrupt at the second."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def watch_interrupts() -> Iterator[Interruption]:
    """Replace the effect of Ctrl-C inside the block: the first is noted, the second raises KeyboardInterrupt.

    An exception in the middle of an optimizer step leaves weights that no run without interruption ever has; noting the
    signal lets the trainer finish its step and save. Signals reach only the main thread of Python: in any other
    thread nothing is replaced.

    Yields:
        The object that says whether to stop.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    previous = signal.signal(signal.SIGINT, interruption.request)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
