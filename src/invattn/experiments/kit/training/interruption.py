"""Ctrl-C, and the end of the time that the user gave, that wait for the end of the step."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType
from typing import Any

from invattn._errors import InvAttnError


class Interrupted(InvAttnError):
    """The user stopped the work, or its time is over; what is needed to continue it is on the disk."""


class Interruption:
    """Whether to stop: inside its block the first Ctrl-C is noted, the second raises KeyboardInterrupt.

    An exception in the middle of an optimizer step, which is what Lightning has for Ctrl-C, leaves weights that no run
    without interruption ever has; noting the signal lets the trainer finish its step and save. Signals reach only the
    main thread of Python: in any other thread nothing is replaced.

    Args:
        deadline: When to stop without being asked, on the clock of ``time.monotonic``.
    """

    def __init__(self, *, deadline: float = math.inf) -> None:
        self._deadline = deadline
        self._asked = False
        self._previous: Any = None

    @property
    def requested(self) -> bool:
        """True after the first Ctrl-C, and from the deadline on."""
        return self._asked or time.monotonic() >= self._deadline

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
