"""Processes that a launcher such as torchrun has started: which one this is, read from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from invattn._errors import DataError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun, and launchers that follow it, set for every process."""

_SIGNS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # some clusters set MASTER_ADDR or WORLD_SIZE everywhere
_WAIT = timedelta(hours=3)  # the others wait while the first process measures what they have trained


@dataclass(frozen=True)
class Launched:
    """One of several processes that were started together.

    Attributes:
        rank: Its number among all.
        world_size: How many there are.
        local_rank: Its number on its machine.
        local_world_size: How many run on each machine.
        address: Where the first one of all listens.
        port: Its port there.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.world_size // self.local_world_size


def find_launched(environment: Mapping[str, str]) -> Launched | None:
    """Return what a launcher says of this process, or None if none has started it.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; LOCAL_WORLD_SIZE where machines are
            several.

    Raises:
        DataError: If a variable is missing, no number, or does not fit the others; one line.
    """
    if not all(name in environment for name in _SIGNS):
        return None
    missing = [name for name in NAMES if not environment.get(name)]
    if missing:
        raise DataError(
            f"RANK, WORLD_SIZE and LOCAL_RANK say that a launcher started this process, and {', '.join(missing)} "
            "is not set. Start with torchrun, or unset those three."
        )
    numbers = {name: environment[name] for name in (*_SIGNS, "MASTER_PORT")}
    numbers["LOCAL_WORLD_SIZE"] = environment.get("LOCAL_WORLD_SIZE") or environment["WORLD_SIZE"]
    wrong = [f"{name}={text}" for name, text in numbers.items() if not text.isdecimal()]
    if wrong:
        raise DataError(f"{', '.join(wrong)} in the environment must be a number. torchrun sets it right.")
    found = Launched(
        rank=int(numbers["RANK"]),
        world_size=int(numbers["WORLD_SIZE"]),
        local_rank=int(numbers["LOCAL_RANK"]),
        local_world_size=int(numbers["LOCAL_WORLD_SIZE"]),
        address=environment["MASTER_ADDR"],
        port=int(numbers["MASTER_PORT"]),
    )
    _check(found)
    return found


def _check(found: Launched) -> None:
    """Raise DataError unless the numbers fit each other."""
    local = found.local_world_size
    if not 0 < local <= found.world_size or found.world_size % local:
        raise DataError(
            f"{found.world_size} processes cannot run {local} on each machine. Start the same number on every machine."
        )
    if found.rank >= found.world_size or found.local_rank != found.rank % local:
        raise DataError(
            f"RANK={found.rank} and LOCAL_RANK={found.local_rank} do not fit WORLD_SIZE={found.world_size} with "
            f"{local} processes on each machine. RANK must be below WORLD_SIZE, and count machine by machine."
        )


@contextmanager
def joined(launched: Launched | None, *, on_gpu: bool) -> Iterator[None]:
    """Keep the group of all processes open: for one training after another, while the launcher's store lives on.

    Args:
        launched: This process; None, or the only one: nothing is done.
        on_gpu: Whether they talk by NCCL; else by gloo.
    """
    if launched is None or launched.world_size == 1:
        yield
        return
    if on_gpu:
        torch.cuda.set_device(launched.local_rank)
    environment = dict(os.environ)
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo", rank=launched.rank, world_size=launched.world_size, timeout=_WAIT
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(environment)
