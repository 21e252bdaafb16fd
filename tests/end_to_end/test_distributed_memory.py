"""Constant-memory training in two processes under DistributedDataParallel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

SCRIPT = Path(__file__).with_name("distributed_memory.py")
LIMIT = 240  # seconds, for a run that hangs; one needs about ten

pytestmark = pytest.mark.skipif(
    os.name != "posix" or not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="needs fork and a torch with gloo",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each process found."""
    folder = tmp_path_factory.mktemp("distributed_memory")
    process = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()
    return [torch.load(folder / f"gradients-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", ["constant 0", "constant 1", "accumulated", "flow"])
def test_gradients_are_equal_and_those_of_the_whole_batch(found: list[dict[str, Tensor]], name: str) -> None:
    first, second = (one[name] for one in found)
    assert torch.equal(first, second)
    wanted = found[0]["ordinary"]
    assert float((first - wanted).norm()) <= 1e-9 * float(wanted.norm())


@pytest.mark.parametrize("recipe", ["certified", "paper"])
def test_each_process_draws_its_own_probes_as_without_it(found: list[dict[str, Tensor]], recipe: str) -> None:
    """Gradients, refined singular vectors and the random stream afterwards."""
    for one in found:
        torch.testing.assert_close(one[f"{recipe} constant"], one[f"{recipe} ordinary"], rtol=1e-8, atol=1e-10)
    assert not torch.equal(*(one[f"{recipe} constant"][-1:] for one in found))
