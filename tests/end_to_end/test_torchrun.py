"""``torchrun -m invattn density train``: the losses of one process, from processes that torchrun has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from invattn.cli.main import main

TINY = ["--blocks", "1", "--attention-layers", "1", "--hidden-channels", "4", "--batch-size", "8", "--test-size", "8"]
TINY += ["--terms", "2", "--warm-up", "2", "--accelerator", "cpu", "--steps", "5", "--attention", "none,gaussian"]


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on two processes of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "invattn", "density", "train", *TINY, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def results(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())["results"]
    return found


def test_two_trainings_in_a_row_have_the_losses_of_one_process(tmp_path: Path) -> None:
    """The second one shows that the processes stay together while the first of them measures."""
    finished = torchrun("--output", str(tmp_path / "two"))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("page: ") == 1, "the first process alone tells what it wrote"
    assert main(["density", "train", *TINY, "--output", str(tmp_path / "one")]) == 0
    pairs = list(zip(results(tmp_path / "two"), results(tmp_path / "one"), strict=True))
    assert len(pairs) == 2
    for both, alone in pairs:
        assert len(alone["train_loss"]) == 5
        assert both["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-4)
    assert json.loads((tmp_path / "two" / "results.json").read_text())["settings"]["devices"] == 2


@pytest.mark.slow
def test_other_numbers_of_processes_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    finished = torchrun("--devices", "4", "--output", str(tmp_path / "out"))
    assert finished.returncode != 0
    assert "a launcher started 2 processes on each of 1 machines, and 4 on each of 1 were asked for" in finished.stderr
    assert not (tmp_path / "out").exists()
