"""Which process of a training this is, what a launcher says of it, and what makes a training on several impossible."""

from __future__ import annotations

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.training.companions import joined
from invattn.experiments.kit.training.machines import Machines, Worker, find_launched
from invattn.logdet import Shard

THIRD = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}
SECOND = {"NODE_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}


def test_the_processes_of_the_second_machine_are_numbered_after_those_of_the_first() -> None:
    first = Machines(devices=3, nodes=2).first_worker(SECOND)
    workers = [first, *first.companions()]
    assert [worker.rank for worker in workers] == [3, 4, 5]
    assert [worker.local_rank for worker in workers] == [0, 1, 2]
    assert [worker.shard for worker in workers] == [Shard(3, 6), Shard(4, 6), Shard(5, 6)]
    assert not any(worker.leads for worker in workers)
    environment = workers[2].environment()
    assert {name: environment[name] for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE")} == {
        "RANK": "5",
        "LOCAL_RANK": "2",
        "GROUP_RANK": "1",
        "WORLD_SIZE": "6",
    }
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("first", "29500")
    assert find_launched(environment) == Worker(Machines(devices=3, nodes=2), 5, "first", 29500, launched=True)


def test_one_machine_needs_no_environment_and_chooses_a_free_port() -> None:
    worker = Machines(devices=2).first_worker({})
    assert worker.leads
    assert (worker.address, worker.node) == ("127.0.0.1", 0)
    assert 1024 <= worker.port < 65536
    assert Machines().first_worker({}).port == 0


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
    with pytest.raises(ValueError, match="devices: expected a whole number, at least 1; got 0"):
        Machines(devices=0)


def test_a_launched_process_is_the_one_that_the_environment_names_and_starts_no_other() -> None:
    launched = find_launched(THIRD)
    assert launched is not None
    worker = Machines(devices=launched.machines.devices, nodes=launched.machines.nodes).first_worker(THIRD)
    assert (worker.rank, worker.local_rank, worker.node, worker.world_size) == (3, 1, 1, 4)
    assert (worker.address, worker.port) == ("first", 29500)
    assert worker.shard == Shard(3, 4)
    assert not worker.leads
    assert worker.companions() == []


def test_without_the_number_of_local_processes_all_run_on_one_machine() -> None:
    environment = {name: value for name, value in THIRD.items() if name != "LOCAL_WORLD_SIZE"} | {"LOCAL_RANK": "3"}
    launched = find_launched(environment)
    assert launched is not None
    assert (launched.machines.devices, launched.machines.nodes) == (4, 1)


@pytest.mark.parametrize("without", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_an_environment_that_lacks_one_of_the_signs_is_no_launcher(without: str) -> None:
    assert find_launched({name: value for name, value in THIRD.items() if name != without}) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set. Start with torchrun, or unset"),
        ({"RANK": "-1"}, "RANK=-1 in the environment must be a number"),
        ({"LOCAL_WORLD_SIZE": "3"}, "4 processes cannot run 3 on each machine"),
        ({"LOCAL_WORLD_SIZE": "0"}, "4 processes cannot run 0 on each machine"),
        ({"RANK": "5"}, "RANK=5 and LOCAL_RANK=1 do not fit WORLD_SIZE=4"),
        ({"LOCAL_RANK": "0"}, "RANK=3 and LOCAL_RANK=0 do not fit"),
    ],
)
def test_a_wrong_environment_is_one_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        find_launched(THIRD | changes)
    assert "\n" not in str(error.value)


def test_other_numbers_of_processes_than_were_started_are_refused() -> None:
    with pytest.raises(DataError, match="started 2 processes on each of 2 machines, and 4 on each of 1 "):
        Machines(devices=4).first_worker(THIRD)


def test_a_process_that_nobody_launched_joins_nothing() -> None:
    with joined(None, on_gpu=False):
        assert not torch.distributed.is_initialized()
