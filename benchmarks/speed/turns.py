"""Variants of one computation, timed in turn: seconds of the processor on one thread, then wall time on two."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from results_file import ResultsFile

Run = Callable[[], object]
CPU, WALL = "cpu_seconds", "wall_seconds_2_threads"


def seconds(run: Run, *, clock: Callable[[], float]) -> float:
    """Return how long a call takes."""
    start = clock()
    run()
    return clock() - start


class Turns:
    """Measures one row of the table.

    pytest-benchmark times the first variant, ours; the others take their turn while it sets up each of its rounds, with
    the same clock.

    Args:
        benchmark: The fixture of pytest-benchmark; its timer is ``time.process_time``.
        results: Where rows are kept.
        wall: Whether wall time on two threads is measured, beside what the row holds, instead of seconds of the
            processor: it says something on an idle machine only.
    """

    def __init__(self, benchmark: Any, results: ResultsFile, *, wall: bool = False) -> None:
        self._benchmark = benchmark
        self._results = results
        self._wall = wall

    def measure(
        self, name: str, variants: Mapping[str, Run], *, rounds: int, warm: int = 1, wall_rounds: int = 1, **facts: Any
    ) -> None:
        """Time the variants and keep the row.

        Args:
            name: Of the row.
            variants: What is compared by name, ours first.
            rounds: How often every variant takes its turn on one thread.
            warm: Rounds before them that are not counted.
            wall_rounds: How often on two threads, by the clock on the wall.
            **facts: What else the row shall say.
        """
        if self._wall:
            torch.set_num_threads(2)
            found = self._take(variants, rounds=wall_rounds, warm=warm, clock=time.perf_counter)
            torch.set_num_threads(1)
            row = self._results.rows.get(name, {}) | {WALL: found, "wall_load": os.getloadavg()[0]}
        else:
            found = self._take(variants, rounds=rounds, warm=warm, clock=time.process_time)
            row = self._results.rows.get(name, {}) | {CPU: found, "load": os.getloadavg()[0]}
        self._results.keep(name, {"ours": next(iter(variants)), **row, **facts})

    def _take(
        self, variants: Mapping[str, Run], *, rounds: int, warm: int, clock: Callable[[], float]
    ) -> dict[str, list[float]]:
        """Return the seconds of every variant in every round."""
        (ours, own), *others = variants.items()
        found: dict[str, list[float]] = {name: [] for name in variants}

        def others_first() -> None:
            for name, run in others:
                found[name].append(seconds(run, clock=clock))

        def own_turn() -> None:
            found[ours].append(seconds(own, clock=clock))

        self._benchmark.pedantic(own_turn, setup=others_first, rounds=rounds, warmup_rounds=warm)
        return {name: taken[warm:] for name, taken in found.items()}
