"""Cells of a run at the same time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import TypeVar

import torch

from invattn.training import Progress, WorkerLost
from invattn.training.companions import end_with_parent

Cell = TypeVar("Cell")
Result = TypeVar("Result")


def in_parallel(
    task: Callable[[Cell], Result], cells: Sequence[Cell], *, workers: int, threads: int, progress: Progress
) -> list[Result]:
    """Return what a task returns for every cell, in their order.

    At Ctrl-C every training saves its state; what is not a training then ends first.

    Args:
        task: A function of a module; it must write what is to be kept.
        cells: It must be possible to pickle them.
        workers: Processes, at least 1.
        threads: Of torch in each.
        progress: Is told of every cell that is done.

    Raises:
        WorkerLost: If a process was killed.
        Exception: What a task raises; further cells are not begun.
    """
    pool = ProcessPoolExecutor(
        min(workers, len(cells)) or 1, mp_context=get_context("spawn"), initializer=_start, initargs=(threads,)
    )
    progress.begin(f"train and measure, {workers} at a time", total=len(cells))
    futures = [pool.submit(task, cell) for cell in cells]
    try:
        for future in as_completed(futures):
            future.result()
            progress.advance()
    except BrokenProcessPool:
        raise WorkerLost("a process of the run was killed. Run the same command with --resume to continue.") from None
    except BaseException:
        for child in active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        progress.end()
    return [future.result() for future in futures]


def _start(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a training listens by itself
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
