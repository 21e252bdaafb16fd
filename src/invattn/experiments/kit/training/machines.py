"""How many processes train together, where, and which of them this one is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from invattn._errors import DataError, check_name
from invattn.logdet import Shard

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


ACCELERATORS = ("auto", "cpu", "gpu")
_LOCAL = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What a training runs on: one process a device.

    Attributes:
        devices: Processes, and GPUs where it runs on GPUs, of each machine.
        nodes: Machines; the same command is started on each.
        accelerator: cpu, gpu, or auto for a GPU where there is one.

    Raises:
        ValueError: If the accelerator is unknown or a number is below 1.
    """

    devices: int = 1
    nodes: int = 1
    accelerator: str = "cpu"

    def __post_init__(self) -> None:
        check_name(self.accelerator, ACCELERATORS, what="accelerator")
        if self.devices < 1 or self.nodes < 1:
            raise ValueError(f"devices and nodes must be at least 1; got {self.devices} and {self.nodes}.")

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes

    @property
    def on_gpu(self) -> bool:
        """Whether training runs on GPUs."""
        return self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())

    def check(self, *, batch_size: int) -> None:
        """Check that the machine has the devices and that a batch can be divided among the processes.

        Raises:
            DataError: If not; one line that says what to do.
        """
        found = torch.cuda.device_count()
        if self.on_gpu and self.devices > found:
            raise DataError(
                f"{self.devices} GPUs were asked for and {found} found. Choose --devices up to that, or "
                "--accelerator cpu."
            )
        if batch_size % self.world_size:
            raise DataError(
                f"a batch of {batch_size} samples cannot be divided among {self.world_size} processes "
                f"({self.devices} devices x {self.nodes} nodes). Choose a --batch-size that is a multiple of "
                f"{self.world_size}."
            )

    def check_launched(self, launched: Launched) -> None:
        """Check that a launcher has started the processes that are wanted.

        Raises:
            DataError: If not.
        """
        if (self.devices, self.nodes) != (launched.local_world_size, launched.nodes):
            raise DataError(
                f"a launcher started {launched.local_world_size} processes on each of {launched.nodes} machines, and "
                f"{self.devices} on each of {self.nodes} were asked for. Leave out --devices and --nodes."
            )

    def first_worker(self, environment: Mapping[str, str]) -> Worker:
        """Return the first process of this machine; where a launcher has started this process, this process.

        Args:
            environment: Of several machines each needs NODE_RANK (0 on the first), MASTER_ADDR (the name of the first)
                and MASTER_PORT (a free port of it). Launchers set what :func:`find_launched` reads.

        Raises:
            DataError: If one of them is missing or wrong, or a launcher started other numbers of processes.
        """
        launched = find_launched(environment)
        if launched is not None:
            self.check_launched(launched)
            return Worker(
                self,
                node=launched.rank // self.devices,
                local_rank=launched.local_rank,
                address=launched.address,
                port=launched.port,
                launched=True,
            )
        if self.nodes == 1:
            return Worker(self, port=_free_port() if self.world_size > 1 else 0)
        missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
        if missing:
            raise DataError(
                f"training on {self.nodes} machines needs {', '.join(missing)} in the environment: on each, start the "
                "same command with NODE_RANK=0, 1, ..., MASTER_ADDR (the first machine) and MASTER_PORT (a free port)."
            )
        node, port = environment["NODE_RANK"], environment["MASTER_PORT"]
        if not (node.isdecimal() and int(node) < self.nodes and port.isdecimal() and 0 < int(port) < 65536):
            raise DataError(
                f"NODE_RANK must be below the number of machines, {self.nodes}, and MASTER_PORT a port; got {node!r} "
                f"and {port!r}."
            )
        return Worker(self, node=int(node), address=environment["MASTER_ADDR"], port=int(port))


@dataclass(frozen=True)
class Worker:
    """One process of a training.

    Attributes:
        machines: What the training runs on.
        node: Number of its machine.
        local_rank: Its number on that machine.
        address: Where the first process of all listens.
        port: Its port there; 0 where one process trains alone.
        launched: Whether a launcher has started it, and its companions too.
    """

    machines: Machines
    node: int = 0
    local_rank: int = 0
    address: str = _LOCAL
    port: int = 0
    launched: bool = False

    @property
    def rank(self) -> int:
        """Its number among all processes."""
        return self.node * self.machines.devices + self.local_rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.machines.world_size

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes files."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """Its part of every batch."""
        return Shard(self.rank, self.world_size)

    def companions(self) -> list[Worker]:
        """Return the further processes of its machine that it has to start."""
        if self.launched:
            return []
        return [replace(self, local_rank=number) for number in range(1, self.machines.devices)]


ALONE = Worker(Machines())
"""One process on the CPU."""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_LOCAL, 0))
        port: int = listener.getsockname()[1]
        return port


_JOIN_WAIT = timedelta(minutes=30)
_WAIT_FOR_MACHINES = timedelta(hours=3)  # another machine waits while the first one measures what it has trained


def trainer_options(worker: Worker) -> dict[str, Any]:
    """Return the arguments of a Lightning trainer that decide where it runs."""
    machines = worker.machines
    options: dict[str, Any] = {"accelerator": "cuda" if machines.on_gpu else "cpu", "devices": machines.devices}
    if worker.world_size == 1:
        return options
    # Buffers are functions of the weights, which all processes share: they are sent once, at the start.
    strategy = DDPStrategy(
        cluster_environment=WorkerEnvironment(worker),
        process_group_backend="nccl" if machines.on_gpu else "gloo",
        timeout=_JOIN_WAIT if machines.nodes == 1 else _WAIT_FOR_MACHINES,
        forward_sync_buffers=False,
    )
    return options | {"num_nodes": machines.nodes, "strategy": strategy}


class WorkerEnvironment(ClusterEnvironment):
    """Says which process this is, without environment variables; the processes are started elsewhere.

    Args:
        worker: This process.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._worker.address

    @property
    def main_port(self) -> int:
        return self._worker.port

    @staticmethod
    def detect() -> bool:
        """Return False: it is chosen, never found."""
        return False

    def world_size(self) -> int:
        return self._worker.world_size

    def set_world_size(self, size: int) -> None:
        """Ignore it: the worker knows."""

    def global_rank(self) -> int:
        return self._worker.rank

    def set_global_rank(self, rank: int) -> None:
        """Ignore it: the worker knows."""

    def local_rank(self) -> int:
        return self._worker.local_rank

    def node_rank(self) -> int:
        return self._worker.node
