"""A training's processes as Lightning wants them described."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from invattn.training.machines import Worker

_WAIT = timedelta(minutes=30)
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
        timeout=_WAIT if machines.nodes == 1 else _WAIT_FOR_MACHINES,
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
