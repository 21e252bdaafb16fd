"""What a launcher says of a process: adopted whole, or refused in one line."""

from __future__ import annotations

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.training.machines import Machines, find_launched, joined
from invattn.logdet import Shard

THIRD = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}


def test_a_launched_process_is_the_one_that_the_environment_names_and_starts_no_other() -> None:
    launched = find_launched(THIRD)
    assert launched is not None
    worker = Machines(devices=launched.local_world_size, nodes=launched.nodes).first_worker(THIRD)
    assert (worker.rank, worker.local_rank, worker.node, worker.world_size) == (3, 1, 1, 4)
    assert (worker.address, worker.port) == ("first", 29500)
    assert worker.shard == Shard(3, 4)
    assert not worker.leads
    assert worker.companions() == []


def test_without_the_number_of_local_processes_all_run_on_one_machine() -> None:
    environment = {name: value for name, value in THIRD.items() if name != "LOCAL_WORLD_SIZE"} | {"LOCAL_RANK": "3"}
    launched = find_launched(environment)
    assert launched is not None
    assert (launched.local_world_size, launched.nodes) == (4, 1)


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
