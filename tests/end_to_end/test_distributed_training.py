"""Resuming under DistributedDataParallel, driven by Lightning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

SCRIPT = Path(__file__).with_name("distributed_training.py")


def train(folder: Path, *options: str) -> int:
    folder.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    process = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *options],
        env={**inherited, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert process.returncode in (0, -9), process.stderr.decode()
    return process.returncode


def weights(folder: Path, rank: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / f"weights-{rank}.pt", weights_only=True)
    return state


@pytest.mark.slow
def test_two_killed_processes_resume_to_the_same_weights(tmp_path: Path) -> None:
    assert train(tmp_path / "whole") == 0
    assert train(tmp_path / "killed", "--stop", "7") == -9
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["state.ckpt"]
    assert train(tmp_path / "killed", "--resume") == 0
    whole = weights(tmp_path / "whole", 0)
    for state in (weights(tmp_path / "whole", 1), weights(tmp_path / "killed", 0), weights(tmp_path / "killed", 1)):
        assert all(torch.equal(state[name], whole[name]) for name in whole)
