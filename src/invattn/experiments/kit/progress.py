"""What long work reports while it runs: a protocol that the command line implements, and its silent form."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


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


def progress_for(console: Console) -> Progress:
    """Return what suits the console: a bar in a terminal, lines elsewhere."""
    return BarProgress(console) if console.is_terminal else LineProgress(console)


class BarProgress:
    """One bar for the present task; a finished task leaves one line with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._note = ""
        self._start = 0.0

    def begin(self, task: str, *, total: int) -> None:
        """Show a bar of ``total`` steps."""
        self.end()
        self._name, self._note, self._start = task, "", time.monotonic()
        self._task = self._bars.add_task(task, total=total, note="")
        self._bars.start()

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Move the bar on."""
        if self._task is not None:
            self._note = note or self._note
            self._bars.update(self._task, advance=steps, note=self._note)

    def end(self) -> None:
        """Replace the bar by one line."""
        if self._task is None:
            return
        self._bars.stop()
        self._bars.remove_task(self._task)
        self._task = None
        self.message(_summary(self._name, self._note, time.monotonic() - self._start))

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False)


class LineProgress:
    """Plain lines: one when a task begins, one every ``interval`` seconds, one when it ends."""

    def __init__(
        self, console: Console, *, interval: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._interval = interval
        self._clock = clock
        self._name = ""
        self._note = ""
        self._total = self._done = 0
        self._start = self._shown = 0.0

    def begin(self, task: str, *, total: int) -> None:
        """Say that a task begins."""
        self.end()
        self._name, self._note, self._total, self._done = task, "", total, 0
        self._start = self._shown = self._clock()
        self.message(f"{task} ...")

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Count steps, and say how far it is if the last line is ``interval`` seconds old."""
        self._done += steps
        self._note = note or self._note
        if self._clock() - self._shown >= self._interval:
            self._shown = self._clock()
            self.message(f"{self._name}: {self._done} of {self._total} {self._note}".rstrip())

    def end(self) -> None:
        """Say how long the task took."""
        if self._name:
            self.message(_summary(self._name, self._note, self._clock() - self._start))
        self._name = ""

    def message(self, text: str) -> None:
        """Print a line at once."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _summary(name: str, note: str, seconds: float) -> str:
    detail = f", {note}" if note else ""
    return f"{name}: {seconds:.1f} s{detail}"


@contextmanager
def task_of(progress: Progress, task: str, *, total: int) -> Iterator[None]:
    """Begin a task of ``total`` equal steps, and end it however the block inside ends."""
    progress.begin(task, total=total)
    try:
        yield
    finally:
        progress.end()
