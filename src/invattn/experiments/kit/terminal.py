"""What commands print: progress while they work, then tables, notes and paths."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from invattn._errors import InvAttnError
from invattn.experiments.kit.progress import Progress

_WIDTH = 120
"""Columns of a table that is not shown in a terminal."""


def show_table(title: str, names: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table.

    Args:
        title: Stands above it.
        names: Headings of the columns of names, which are not broken.
        numbers: Headings of the columns of numbers, to the right of those.
        rows: Cells.
    """
    table = Table(title=title)
    for heading in names:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)


def show_notes(notes: Iterable[str]) -> None:
    """Print what a reader of the results should know, a line each."""
    for note in notes:
        show_line(f"note: {note}")


def show_line(text: str) -> None:
    """Print one line as it is, however long."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def show_path(what: str, path: Path) -> None:
    """Print where something was written."""
    print(f"{what}: {path.resolve()}")


def refuse_stopped(reasons: Sequence[str], *, trainings: int, output: Path, remedy: str) -> None:
    """Raise if trainings stopped early; the results of the others are written.

    Args:
        reasons: Which stopped and why: a text for each.
        trainings: How many there were.
        output: Where the states are.
        remedy: What to try.

    Raises:
        InvAttnError: If any did.
    """
    if reasons:
        raise InvAttnError(
            f"{len(reasons)} of {trainings} trainings stopped early. {reasons[0]}. The last saved states stay in "
            f"{output / 'cells'}; try a smaller {remedy}."
        )


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Show progress on the standard error; work that can be continued and was interrupted ends as after Ctrl-C.

    Raises:
        KeyboardInterrupt: If the user stopped the work; its text says how to continue.
    """
    from invattn.experiments.kit.training.interruption import Interrupted

    try:
        yield progress_for(Console(stderr=True))
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from None


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

    def begin(self, task: str, *, total: int) -> None:
        """Show a bar of ``total`` steps."""
        self.end()
        self._bars.add_task(task, total=total, note="")
        self._bars.start()

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Move the bar on."""
        for task in self._bars.tasks:
            self._bars.update(task.id, advance=steps, note=note or task.fields["note"])

    def end(self) -> None:
        """Replace the bar by one line."""
        for task in self._bars.tasks:
            self._bars.stop()
            self._bars.remove_task(task.id)
            self.message(_summary(task.description, task.fields["note"], task.elapsed or 0.0))

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
