"""Maximum likelihood on two processes: the losses and weights of one, whatever each of them draws."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from invattn.cli.main import main

SCRIPT = Path(__file__).with_name("distributed_likelihood.py")
TINY = ["--attention", "gaussian", "--blocks", "1", "--attention-layers", "1", "--hidden-channels", "4"]
TINY += ["--batch-size", "8", "--test-size", "8", "--terms", "2", "--warm-up", "2", "--accelerator", "cpu"]


def run_script(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def difference(left: dict[str, Any], right: dict[str, Any]) -> float:
    """Return the largest absolute difference between two states."""
    assert left.keys() == right.keys()
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def test_two_processes_have_the_losses_of_one_and_the_same_weights(tmp_path: Path) -> None:
    """Losses to 1e-4 over 20 steps; rounding alone differs, so what is found is far below."""
    finished = run_script(tmp_path)
    assert finished.returncode == 0, finished.stderr
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    assert first["losses"] == second["losses"]
    assert len(set(first["losses"])) == len(first["losses"]) == 20
    assert first["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    for part in ("flow", "average"):
        assert difference(first[part], second[part]) == 0
        assert difference(first[part], alone[part]) < 1e-3
    assert difference(first["flow"], first["average"]) > 1e-3, "the average must be something else"


def test_the_command_on_two_processes_gives_the_numbers_of_one(tmp_path: Path) -> None:
    found = []
    for devices in ("1", "2"):
        output = tmp_path / devices
        assert main(["density", "train", *TINY, "--steps", "20", "--devices", devices, "--output", str(output)]) == 0
        result = json.loads((output / "results.json").read_text())["results"][0]
        weights = load_file(output / "model" / "gaussian-certified" / "model.safetensors")
        found.append((result, weights))
    (alone, weights), (both, others) = found
    assert both["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-4)
    assert both["metrics"]["nats_per_dim"] == pytest.approx(alone["metrics"]["nats_per_dim"], abs=1e-4)
    assert difference(weights, others) < 1e-3
    assert not torch.distributed.is_initialized()
    assert "MASTER_PORT" not in os.environ


@pytest.mark.slow
def test_a_lost_process_ends_the_others(tmp_path: Path) -> None:
    finished = run_script(tmp_path, "--lose-companion")  # waits for 5 minutes; without an end it would take 30
    assert "WorkerLost: another process of the training ended" in finished.stderr
    assert (tmp_path / "2.ckpt").exists()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "invattn", "density", "train", *TINY, *arguments]


@pytest.mark.slow
def test_ctrl_c_stops_both_processes_at_one_step_and_resuming_gives_the_same_losses(tmp_path: Path) -> None:
    options = ["--steps", "400", "--devices", "2"]
    whole, stopped = str(tmp_path / "whole"), str(tmp_path / "stopped")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(*options, "--output", whole), env=environment, check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(
        command(*options, "--output", stopped), env=environment, stderr=subprocess.PIPE, text=True
    )
    state = tmp_path / "stopped" / "cells" / "gaussian-certified-0.ckpt"
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 130, errors
    assert "--resume" in errors.splitlines()[-1]
    assert 0 < torch.load(state, weights_only=True)["global_step"] < 400
    resumed = command(*options, "--output", stopped, "--resume")
    subprocess.run(resumed, env=environment, check=True, capture_output=True, timeout=300)
    left, right = (json.loads((Path(folder) / "results.json").read_text())["results"][0] for folder in (whole, stopped))
    assert left["train_loss"] == right["train_loss"]
    assert left["metrics"] == right["metrics"]


@pytest.mark.slow
def test_two_machines_train_together_and_the_first_one_writes(tmp_path: Path) -> None:
    started = []
    for node in ("0", "1"):
        environment = {**os.environ, "NODE_RANK": node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29712"}
        arguments = command("--steps", "20", "--nodes", "2", "--output", str(tmp_path / "two"), "--repeats", "2")
        started.append(
            subprocess.Popen(
                arguments,
                env={**environment, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert "the first machine writes" in outputs[1][0]
    assert main(["density", "train", *TINY, "--steps", "20", "--repeats", "2", "--output", str(tmp_path / "one")]) == 0
    left, right = (json.loads((tmp_path / name / "results.json").read_text())["results"] for name in ("two", "one"))
    for one, other in zip(left, right, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)


@pytest.mark.slow
def test_learned_noise_on_two_processes_gives_the_losses_of_one(tmp_path: Path) -> None:
    """1e-4 nats per dimension over 10 steps: rounding alone differs."""
    tiny = ["--data", "digits", "--dequantisation", "variational", "--blocks", "1", "--hidden-channels", "4"]
    tiny += ["--train-size", "64", "--test-size", "8", "--batch-size", "16", "--steps", "10", "--accelerator", "cpu"]
    found = []
    for devices in ("1", "2"):
        output = tmp_path / devices
        assert main(["density", "train", *tiny, "--log-every", "0", "--devices", devices, "--output", str(output)]) == 0
        weights = load_file(output / "model" / "none-certified" / "model.safetensors")
        found.append((json.loads((output / "results.json").read_text())["results"][0], weights))
    (alone, weights), (both, others) = found
    assert both["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-4)
    assert difference(weights, others) < 1e-3
    assert float(weights["dequantisation.head.weight"].abs().max()) > 0
