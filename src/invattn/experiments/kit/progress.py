"""What long work reports while it runs: a protocol that the command line implements, and its silent form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one task after another; tasks never overlap.

    The library calls ``begin``, then ``advance`` any number of times, then ``end``; ``message`` at any time. When an
    error or an interruption ends a task early, ``end`` is still called.
    """

    def begin(self, task: str, *, total: int) -> None:
        """Start a task, named in words, of ``total`` equal steps."""
        ...

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Say that ``steps`` more steps are done; ``note`` is a short text such as the present loss."""
        ...

    def end(self) -> None:
        """Close the task that was begun last."""
        ...

    def message(self, text: str) -> None:
        """Tell the user one line, for example that a finished cell is skipped."""
        ...


class SilentProgress:
    """A ``Progress`` that shows nothing."""

    def begin(self, task: str, *, total: int) -> None:
        """Ignore the start of a task."""

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Ignore a step."""

    def end(self) -> None:
        """Ignore the end of a task."""

    def message(self, text: str) -> None:
        """Ignore a line."""


@contextmanager
def task_of(progress: Progress, task: str, *, total: int) -> Iterator[None]:
    """Begin a task of ``total`` equal steps, and end it however the block inside ends."""
    progress.begin(task, total=total)
    try:
        yield
    finally:
        progress.end()
