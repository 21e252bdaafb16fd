"""Which process of a training this is, and what makes a training on several impossible."""

from __future__ import annotations

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.training import optimisation as options
from invattn.experiments.kit.training.fit import PRECISIONS
from invattn.experiments.kit.training.machines import ACCELERATORS, Machines, WorkerEnvironment, trainer_options
from invattn.experiments.kit.training.optimisation import OPTIMIZERS
from invattn.logdet import Shard

SECOND = {"NODE_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}


def test_the_processes_of_the_second_machine_are_numbered_after_those_of_the_first() -> None:
    first = Machines(devices=3, nodes=2).first_worker(SECOND)
    workers = [first, *first.companions()]
    assert [worker.rank for worker in workers] == [3, 4, 5]
    assert [worker.local_rank for worker in workers] == [0, 1, 2]
    assert [worker.shard for worker in workers] == [Shard(3, 6), Shard(4, 6), Shard(5, 6)]
    assert not any(worker.leads for worker in workers)
    environment = WorkerEnvironment(workers[2])
    assert (environment.global_rank(), environment.local_rank(), environment.node_rank()) == (5, 2, 1)
    assert (environment.world_size(), environment.main_address, environment.main_port) == (6, "first", 29500)


def test_one_machine_needs_no_environment_and_chooses_a_free_port() -> None:
    worker = Machines(devices=2).first_worker({})
    assert worker.leads
    assert (worker.address, worker.node) == ("127.0.0.1", 0)
    assert 1024 <= worker.port < 65536
    assert Machines().first_worker({}).port == 0


def test_one_process_needs_no_strategy() -> None:
    assert trainer_options(Machines().first_worker({})) == {"accelerator": "cpu", "devices": 1}
    assert "strategy" in trainer_options(Machines(devices=2).first_worker({}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NODE_RANK": ""}, "needs NODE_RANK in the environment"),
        ({"NODE_RANK": "2"}, "NODE_RANK must be below the number of machines, 2"),
        ({"NODE_RANK": "-1"}, "NODE_RANK must be below"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT a port; got '1' and 'http'"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT a port"),
    ],
)
def test_a_wrong_environment_is_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Machines(nodes=2).first_worker(SECOND | changes)


def test_a_batch_must_be_divisible_and_devices_there() -> None:
    Machines(devices=2, nodes=3).check(batch_size=12)
    with pytest.raises(DataError, match="16 samples cannot be divided among 6 processes"):
        Machines(devices=2, nodes=3).check(batch_size=16)
    missing = torch.cuda.device_count() + 1
    with pytest.raises(DataError, match=f"{missing} GPUs were asked for"):
        Machines(devices=missing, accelerator="gpu").check(batch_size=missing)


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert Machines(accelerator="auto").on_gpu is torch.cuda.is_available()
    assert not Machines(accelerator="cpu").on_gpu


def test_unknown_names_and_numbers_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown accelerator 'tpu'"):
        Machines(accelerator="tpu")
    with pytest.raises(ValueError, match="devices and nodes must be at least 1; got 0 and 1"):
        Machines(devices=0)


def test_the_command_knows_the_names_that_training_knows() -> None:
    """They are written twice, because training needs Lightning, which takes seconds to import."""
    assert options.ACCELERATORS == ACCELERATORS
    assert options.OPTIMIZERS == OPTIMIZERS
    assert tuple(PRECISIONS) == options.PRECISIONS
