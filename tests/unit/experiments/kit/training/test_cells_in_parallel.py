"""Cells in processes of their own: results in order, errors of a task, a process that is killed."""

from __future__ import annotations

import signal

import pytest

from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.companions import WorkerLost, in_parallel


class Count(SilentProgress):
    def __init__(self) -> None:
        self.total = self.done = self.ended = 0

    def begin(self, task: str, *, total: int) -> None:
        self.total = total

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.done += steps

    def end(self) -> None:
        self.ended += 1


@pytest.mark.slow
def test_results_come_in_the_order_of_the_cells_and_errors_are_the_tasks() -> None:
    count = Count()
    assert in_parallel(abs, [-3, -1, -2], workers=2, threads=1, progress=count) == [3, 1, 2]
    assert (count.total, count.done, count.ended) == (3, 3, 1)
    with pytest.raises(TypeError, match="len"):
        in_parallel(len, [3, 4], workers=1, threads=1, progress=count)  # type: ignore[list-item]
    assert count.ended == 2


@pytest.mark.slow
def test_a_killed_process_is_told_in_one_line() -> None:
    with pytest.raises(WorkerLost, match="--resume"):
        in_parallel(signal.raise_signal, [signal.SIGKILL], workers=1, threads=1, progress=SilentProgress())
