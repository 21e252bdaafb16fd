"""The further processes of a run: started, watched and ended by the first one of their machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import SpawnProcess
from typing import TypeVar

import torch
from torch import distributed

from invattn._errors import InvAttnError
from invattn.experiments.kit.progress import Progress, SilentProgress
from invattn.experiments.kit.training.machines import Machines, Worker

Result = TypeVar("Result")
Cell = TypeVar("Cell")

_TOLD_ELSEWHERE = 3
"""Exit status of a companion that met an error which the first process meets, and tells, too."""

_PATIENCE = 20.0
"""Seconds that a companion has to end by itself."""

_MEASURING = timedelta(hours=3)
"""How long launched processes wait for the first one, which measures what they have trained."""


class WorkerLost(InvAttnError):
    """A process of a training ended, or could not be reached, while the others were waiting for it."""


def on_processes(task: Callable[[Worker, Progress], Result], machines: Machines, progress: Progress) -> Result:
    """Call a task in every process of a training, and return what it returned in this one.

    The first process of each machine is this one; the others are started for the task and end with it. Where a launcher
    has started all of them, each calls this function. Inside the task every process has the environment that torchrun
    gives its own, so that Lightning finds the others.

    Lightning's launchers and torch's elastic agent do not do, because of what docs/training.md promises. The one for
    scripts runs the whole command once more in every process: all of them would measure and write. The one that spawns
    returns weights alone, from processes that are all children: losses, progress and what is raised are lost. The agent
    ends its processes at the first Ctrl-C, before they have finished their step and saved.

    Args:
        task: Called with the process that it runs in and with a progress, which is silent but in the first process.
            It must be possible to pickle it: a function of a module, or a ``functools.partial`` of one.
        machines: What the training runs on.
        progress: For this process.

    Raises:
        WorkerLost: If another process ended before its task did.
        DataError: If the environment does not say which of several machines this is.
    """
    worker = machines.first_worker(os.environ)
    if worker.world_size == 1:
        return task(worker, progress)
    with _surroundings_of(worker), _companions(task, worker) as companions:
        try:
            return task(worker, progress if worker.leads else SilentProgress())
        except RuntimeError as error:
            if not (_lost(companions) or _is_of_the_network(error)):
                raise
            raise WorkerLost(
                "another process of the training ended or could not be reached; the state of the last save is kept. "
                "Run the same command with --resume to continue."
            ) from error


@contextmanager
def joined(worker: Worker | None, *, on_gpu: bool) -> Iterator[None]:
    """Keep the group of all processes open: for one training after another, while the launcher's store lives on.

    Args:
        worker: This process, if a launcher has started it; None, or the only one: nothing is done.
        on_gpu: Whether they talk by NCCL; else by gloo.
    """
    if worker is None or worker.world_size == 1:
        yield
        return
    if on_gpu:
        torch.cuda.set_device(worker.local_rank)
    with _surroundings_of(worker):
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_MEASURING)
        yield


@contextmanager
def _surroundings_of(worker: Worker) -> Iterator[None]:
    """Set the environment of a process inside the block; then take it back, with what Lightning sets.

    A group of processes that was opened inside is closed.
    """
    threads, environment, open_before = torch.get_num_threads(), dict(os.environ), distributed.is_initialized()
    os.environ.update(worker.environment())
    try:
        yield
    finally:
        if distributed.is_initialized() and not open_before:
            distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def _companions(task: Callable[[Worker, Progress], object], worker: Worker) -> Iterator[list[SpawnProcess]]:
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_accompany, args=(task, other), daemon=True) for other in worker.companions()]
    for process in started:
        process.start()
    try:
        yield started
        patience = _PATIENCE
    except BaseException:
        patience = 1.0
        raise
    finally:
        for process in started:
            process.join(patience)
            if process.is_alive():
                process.kill()
                process.join()


def _accompany(task: Callable[[Worker, Progress], object], worker: Worker) -> None:
    """Do the task in a further process, without a word: the first process tells the user what happens."""
    _depend_on_parent()
    try:
        with _surroundings_of(worker):
            task(worker, SilentProgress())
    except (InvAttnError, OSError, KeyboardInterrupt):
        sys.exit(_TOLD_ELSEWHERE)
    except RuntimeError as error:
        if not _is_of_the_network(error):
            raise
        sys.exit(_TOLD_ELSEWHERE)


def _depend_on_parent(threads: int = 0) -> None:
    """Leave Ctrl-C to the process that started this one, and end with it; 0 leaves the threads of torch as they are."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads:
        torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(_TOLD_ELSEWHERE)


def _lost(companions: list[SpawnProcess]) -> bool:
    """Return whether a companion ended for a reason of its own; it has a moment to be seen."""
    for process in companions:
        process.join(2.0)
    return any(process.exitcode not in (None, 0, _TOLD_ELSEWHERE) for process in companions)


def _is_of_the_network(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def in_parallel(
    task: Callable[[Cell], Result], cells: Sequence[Cell], *, workers: int, threads: int, progress: Progress
) -> list[Result]:
    """Return what a task returns for every cell, in their order.

    At Ctrl-C every training, which listens by itself, saves its state; what is not a training then ends first.

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
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(cells)) or 1, mp_context=context, initializer=_depend_on_parent, initargs=(threads,)
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
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        progress.end()
    return [future.result() for future in futures]
