"""A cell of an experiment, one training and its evaluation, and the loop over all cells of a run."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from invattn._errors import DataError
from invattn._files import read_json, remove_leftovers, write_json
from invattn.experiments.kit.output import Arrays, make_folder, write_arrays
from invattn.experiments.kit.progress import Progress, SilentProgress
from invattn.experiments.kit.record import RunRecord
from invattn.experiments.kit.sources import source_hash
from invattn.experiments.kit.training.companions import in_parallel, on_processes
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.kit.training.machines import Machines, Worker
from invattn.hub.certificate import hash_json


class RunConfig(Protocol):
    """What a cell asks of the options of a run."""

    @property
    def output(self) -> Path:
        """Folder of the run."""

    @property
    def seed(self) -> int:
        """The seed of the first repeat."""


class ModelDescription(Protocol):
    """What a model is built from."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""


Config = TypeVar("Config", bound=RunConfig)
Data = TypeVar("Data")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Cell(ABC, Generic[Config, Data, Result]):
    """A training of one variant and its evaluation.

    Attributes:
        config: The user's options.
        data: What it learns from and is tested on.
        attention: Kind of the attention, or ``none``.
        recipe: Form of the attention, as results and files name it.
        repeat: Number of the repeat, from 0.
    """

    code: ClassVar[str]
    """The module that runs a cell: its numbers depend on all that this imports."""

    config: Config
    data: Data
    attention: str
    recipe: str
    repeat: int

    @property
    @abstractmethod
    def model_config(self) -> ModelDescription:
        """What the model is built from."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what else the numbers depend on: options and hashes of the data."""

    @abstractmethod
    def written(self, result: Result) -> dict[str, Any]:
        """Return what the file of a finished cell holds beside the key."""

    @abstractmethod
    def read(self, content: dict[str, Any]) -> Result:
        """Return the result from the content of such a file.

        Raises:
            DataError: If a key is missing or holds a value of the wrong kind.
        """

    @property
    def variant(self) -> str:
        """``<attention>-<recipe>``."""
        return f"{self.attention}-{self.recipe}"

    @property
    def name(self) -> str:
        """``<attention>-<recipe>-<repeat>``."""
        return f"{self.variant}-{self.repeat}"

    @property
    def seed(self) -> int:
        """The seed of this training."""
        return self.config.seed + self.repeat

    @property
    def key(self) -> str:
        """Hash of everything that the numbers depend on."""
        own = {"model": self.model_config.to_json(), "repeat": self.repeat}
        return hash_json(self.settings() | own | {"code": source_hash(self.code), "torch": torch.__version__})

    @property
    def model_folder(self) -> Path:
        """Where the first repeat's model is for the user."""
        return self.config.output / "model" / self.variant

    @property
    def artifact_file(self) -> Path:
        """Where the arrays behind the figures are."""
        name = self.variant if self.repeat == 0 else self.name
        return self.config.output / "artifacts" / f"{name}.npz"

    def file(self, kind: str) -> Path:
        """Return the path of ``<name>.<kind>`` among the cells."""
        return self.config.output / "cells" / f"{self.name}.{kind}"

    def write_figures(self, arrays: Arrays) -> None:
        """Write the arrays behind the figures.

        Raises:
            OSError: If they cannot be written.
        """
        make_folder(self.artifact_file.parent)
        write_arrays(self.artifact_file, arrays)

    def complete(self) -> bool:
        """Whether the files that belong to a finished cell are all there."""
        return True

    def finish(self, result: Result, *, stopped: bool = False) -> None:
        """Write the numbers; their file says that the cell is done. The state of its training goes, unless it stopped.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(self.file("json"), {"key": self.key, **self.written(result)})
        if not stopped:
            self.file("ckpt").unlink(missing_ok=True)

    def leave(self, result: Result, why: str, progress: Progress) -> None:
        """Write what is known of a training that stopped early, keep its state, and tell why."""
        progress.message(f"{self.name}: {why}. Its last saved state stays in {self.file('ckpt')}.")
        self.finish(result, stopped=True)

    def finished(self) -> Result | None:
        """Return the kept numbers, or None if the cell is not finished.

        Raises:
            DataError: If they are of other options, data, code or version, or damaged.
        """
        if not self.file("json").exists():
            return None
        content = read_json(self.file("json"))
        check_key(content, self.key, self.file("json").parent, what="results")
        return self.read(content) if self.complete() else None


def check_key(content: Any, key: str, folder: Path, *, what: str) -> None:
    """Check that a file was written by the same options, data and code.

    Raises:
        DataError: If not; one line that says what to do.
    """
    if not isinstance(content, dict) or content.get("key") != key:
        raise DataError(
            f"{folder} holds {what} of other options, data or code. Choose another --output, or delete that folder."
        )


@dataclass(frozen=True)
class Deadline:
    """When a run has to stop.

    Attributes:
        minutes: How long it may last; 0 is for ever.
        at: Its end on the clock of ``time.monotonic``.
    """

    minutes: float
    at: float

    @classmethod
    def after(cls, minutes: float) -> Deadline:
        """Return the deadline that is so many minutes from now."""
        return cls(minutes, time.monotonic() + 60 * minutes if minutes else math.inf)

    def why(self) -> str:
        """Say why a run was stopped."""
        return f"{self.minutes:g} minutes are over" if time.monotonic() >= self.at else "interrupted"


NO_DEADLINE = Deadline(0.0, math.inf)

SomeCell = TypeVar("SomeCell", bound=Cell[Any, Any, Any])
SomeRecord = TypeVar("SomeRecord", bound=RunRecord)


def run_cells(
    cells: Sequence[SomeCell],
    progress: Progress,
    *,
    run: Callable[[SomeCell, Progress], Result],
    record: Callable[[list[Result]], SomeRecord],
    prepare: Callable[[], object] = lambda: None,
    workers: int = 1,
    deadline: Deadline = NO_DEADLINE,
) -> SomeRecord:
    """Run every cell that is not finished, and write ``results.json``.

    Args:
        cells: Of one run, at least one.
        progress: Is told what goes on.
        run: Trains and evaluates a cell and writes its files, the numbers last.
        record: Returns the content of ``results.json`` from the results of all cells, in their order.
        prepare: Called before the first cell, after it is known that the output holds no other results.
        workers: Cells that are run at the same time; ``run`` must be a function of a module then.
        deadline: When training stops as at Ctrl-C.

    Raises:
        DataError: If the output holds other results; one line.
        OSError: If a file cannot be written; it names the file, and finished cells are kept.
        Interrupted: On Ctrl-C and at the deadline; the message says how to continue.
    """
    output = cells[0].config.output
    results: dict[str, Result] = {cell.name: found for cell in cells if (found := cell.finished()) is not None}
    remove_leftovers(make_folder(output / "cells"))
    try:
        with _shared_threads(workers):
            prepare()
            for name in results:
                progress.message(f"{name}: finished before, skipped")
            waiting = [cell for cell in cells if cell.name not in results]
            found = _run_all(waiting, progress, run=run, workers=min(workers, len(waiting)))
            results |= {cell.name: result for cell, result in zip(waiting, found, strict=True)}
        content = record([results[cell.name] for cell in cells])
        write_json(output / "results.json", content.to_json())
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"{deadline.why()}: finished cells and the state of the training are in {output / 'cells'}. "
            "Run the same command with --resume to continue."
        ) from None
    return content


def _run_all(
    cells: Sequence[SomeCell], progress: Progress, *, run: Callable[[SomeCell, Progress], Result], workers: int
) -> list[Result]:
    if workers <= 1:
        return [run(cell, progress) for cell in cells]
    return in_parallel(
        partial(_run_silently, run), cells, workers=workers, threads=torch.get_num_threads(), progress=progress
    )


def _run_silently(run: Callable[[SomeCell, Progress], Result], cell: SomeCell) -> Result:
    return run(cell, SilentProgress())


@contextmanager
def _shared_threads(workers: int) -> Iterator[None]:
    """Leave each of several workers its part of the threads inside the block."""
    threads = torch.get_num_threads()
    try:
        if workers > 1:
            torch.set_num_threads(max(1, threads // workers))
        yield
    finally:
        torch.set_num_threads(threads)


def follow_cells(
    cells: Sequence[SomeCell],
    progress: Progress,
    *,
    task: Callable[[SomeCell], Callable[[Worker, Progress], object]],
    machines: Machines,
) -> None:
    """Do the part of a further machine (NODE_RANK above 0) in a run on several: train with the first, write nothing.

    Args:
        cells: As on the first machine; both must see the same output folder.
        progress: Is told what goes on.
        task: Returns the training of a cell.
        machines: What the training runs on.

    Raises:
        DataError: If the output holds other results; one line that says what to do.
        Interrupted: On Ctrl-C.
        WorkerLost: If the first machine does not answer.
    """
    for cell in [cell for cell in cells if cell.finished() is None]:
        progress.message(f"{cell.name}: training with the first machine")
        on_processes(task(cell), machines, progress)
