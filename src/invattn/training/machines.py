"""How many processes train together, where, and which of them this one is."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from invattn._errors import DataError
from invattn._names import check_name
from invattn.logdet import Shard
from invattn.training.launched import Launched, find_launched

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
