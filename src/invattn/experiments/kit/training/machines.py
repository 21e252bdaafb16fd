"""How many processes train together, where, and which of them this one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch

from invattn._errors import DataError
from invattn.experiments.kit.options import Count, Mark, Options, one_of
from invattn.logdet import Shard

Accelerator = Annotated[str, one_of(("auto", "cpu", "gpu"), what="accelerator"), Mark.NOT_OF_A_CELL]

_SIGNS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # some clusters set MASTER_ADDR or WORLD_SIZE everywhere
_NAMES = (*_SIGNS, "MASTER_ADDR", "MASTER_PORT")
"""What torchrun, and launchers that follow it, set for every process."""


@dataclass(frozen=True, kw_only=True)
class MachineOptions(Options):
    """What trainings run on.

    Attributes:
        accelerator: cpu, gpu, or auto for a GPU where there is one.
        devices: Processes, or GPUs, of each machine that share every batch.
        nodes: Machines; start the command on each with NODE_RANK, MASTER_ADDR, MASTER_PORT.
    """

    accelerator: Accelerator = "auto"
    devices: Annotated[Count, Mark.NOT_OF_A_CELL] = 1
    nodes: Annotated[Count, Mark.NOT_OF_A_CELL] = 1

    def machines(self) -> Machines:
        """Return the machines that these options stand for."""
        return Machines(devices=self.devices, nodes=self.nodes, accelerator=self.accelerator)


@dataclass(frozen=True, kw_only=True)
class Machines(MachineOptions):
    """What a training runs on: one process a device.

    Raises:
        ValueError: If the accelerator is unknown or a number is below 1.
    """

    accelerator: Accelerator = "cpu"

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes

    @property
    def on_gpu(self) -> bool:
        """Whether training runs on GPUs."""
        return self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())

    def check(self, *, batch_size: int) -> None:
        """Raise DataError unless the machine has the devices and a batch can be divided among the processes."""
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

    def first_worker(self, environment: Mapping[str, str]) -> Worker:
        """Return the first process of this machine; where a launcher has started this process, this process.

        Args:
            environment: Of several machines each needs NODE_RANK (0 on the first), MASTER_ADDR (the name of the first)
                and MASTER_PORT (a free port of it). Launchers set what :func:`find_launched` reads.

        Raises:
            DataError: If one of them is missing or wrong, or a launcher started other numbers of processes.
        """
        from lightning.fabric.plugins.environments.lightning import find_free_network_port  # takes seconds

        launched = find_launched(environment)
        if launched is not None:
            found = launched.machines
            if (self.devices, self.nodes) != (found.devices, found.nodes):
                raise DataError(
                    f"a launcher started {found.devices} processes on each of {found.nodes} machines, and "
                    f"{self.devices} on each of {self.nodes} were asked for. Leave out --devices and --nodes."
                )
            return replace(launched, machines=self)
        if self.nodes == 1:
            return Worker(self, port=find_free_network_port() if self.world_size > 1 else 0)
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
        return Worker(self, rank=int(node) * self.devices, address=environment["MASTER_ADDR"], port=int(port))


@dataclass(frozen=True)
class Worker:
    """One process of a training.

    Attributes:
        machines: What the training runs on.
        rank: Its number among all processes, counted machine by machine.
        address: Where the first process of all listens.
        port: Its port there; 0 where one process trains alone.
        launched: Whether a launcher has started it, and its companions too.
    """

    machines: Machines
    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    launched: bool = False

    @property
    def node(self) -> int:
        """Number of its machine."""
        return self.rank // self.machines.devices

    @property
    def local_rank(self) -> int:
        """Its number on that machine."""
        return self.rank % self.machines.devices

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
        return [replace(self, rank=self.rank + number) for number in range(1, self.machines.devices)]

    def environment(self) -> dict[str, str]:
        """Return the variables that torchrun sets for such a process, and Lightning and torch read."""
        numbers = {
            "RANK": self.rank,
            "WORLD_SIZE": self.world_size,
            "LOCAL_RANK": self.local_rank,
            "LOCAL_WORLD_SIZE": self.machines.devices,
            "GROUP_RANK": self.node,
            "MASTER_PORT": self.port,
        }
        return {"MASTER_ADDR": self.address} | {name: str(number) for name, number in numbers.items()}


ALONE = Worker(Machines())
"""One process on the CPU."""


def find_launched(environment: Mapping[str, str]) -> Worker | None:
    """Return the process that a launcher says this one is, on the CPU, or None if none has started it.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; LOCAL_WORLD_SIZE where machines are
            several.

    Raises:
        DataError: If a variable is missing, no number, or does not fit the others; one line.
    """
    if not all(name in environment for name in _SIGNS):
        return None
    missing = [name for name in _NAMES if not environment.get(name)]
    if missing:
        raise DataError(
            f"RANK, WORLD_SIZE and LOCAL_RANK say that a launcher started this process, and {', '.join(missing)} "
            "is not set. Start with torchrun, or unset those three."
        )
    texts = {name: environment[name] for name in (*_SIGNS, "MASTER_PORT")}
    texts["LOCAL_WORLD_SIZE"] = environment.get("LOCAL_WORLD_SIZE") or environment["WORLD_SIZE"]
    wrong = [f"{name}={text}" for name, text in texts.items() if not text.isdecimal()]
    if wrong:
        raise DataError(f"{', '.join(wrong)} in the environment must be a number. torchrun sets it right.")
    rank, world_size, local_rank, port, local = map(int, texts.values())
    if not 0 < local <= world_size or world_size % local:
        raise DataError(
            f"{world_size} processes cannot run {local} on each machine. Start the same number on every machine."
        )
    if rank >= world_size or local_rank != rank % local:
        raise DataError(
            f"RANK={rank} and LOCAL_RANK={local_rank} do not fit WORLD_SIZE={world_size} with {local} processes on "
            "each machine. RANK must be below WORLD_SIZE, and count machine by machine."
        )
    machines = Machines(devices=local, nodes=world_size // local)
    return Worker(machines, rank, environment["MASTER_ADDR"], port, launched=True)
