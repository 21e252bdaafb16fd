"""The density experiment at the size that users run it, and killed at moments that nobody chose."""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from invattn.experiments.density.likelihood import inverse_errors, with_estimator
from invattn.experiments.density.stored import open_flow
from invattn.logdet import Exact

SMALL = ["--attention", "gaussian", "--blocks", "1", "--attention-layers", "2", "--hidden-channels", "8"]
SMALL += ["--steps", "200", "--batch-size", "16", "--test-size", "20", "--lr", "0.01", "--checkpoint-minutes", "0.0001"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "invattn", "density", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
def test_five_kills_change_neither_weights_nor_numbers(tmp_path: Path) -> None:
    train = ["train", *SMALL, "--output"]
    subprocess.run(command(*train, str(tmp_path / "whole")), check=True, env=environment(), capture_output=True)
    moments = random.Random(0)
    reached = []
    for _ in range(5):
        state = tmp_path / "killed" / "cells" / "gaussian-certified-0.ckpt"
        before = modified(state)
        arguments = command(*train, str(tmp_path / "killed"), "--resume")
        process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while modified(state) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.1, 0.8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if state.exists():
            reached.append(torch.load(state, weights_only=True)["global_step"])
    assert len(set(reached) & set(range(1, 200))) == 5, f"the kills must hit the training: {reached}"
    subprocess.run(
        command(*train, str(tmp_path / "killed"), "--resume"), check=True, env=environment(), capture_output=True
    )
    left, right = (
        load_file(tmp_path / name / "model" / "gaussian-certified" / "model.safetensors")
        for name in ("whole", "killed")
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text())["results"][0] for name in ("whole", "killed")
    )
    assert first["metrics"] == second["metrics"]
    assert first["train_loss"] == second["train_loss"]


@pytest.mark.slow
def test_attention_explains_point_sets_better_than_any_model_of_single_points(tmp_path: Path) -> None:
    """The demo of the README: at most 1.75 nats per dimension; points that do not see each other have 2.115 at best."""
    started = time.monotonic()
    subprocess.run(command("train", "--output", str(tmp_path)), check=True, env=environment(), capture_output=True)
    assert time.monotonic() - started < 600
    results = {entry["variant"]: entry for entry in json.loads((tmp_path / "results.json").read_text())["results"]}
    attention, control = (results[f"{name}-certified"]["metrics"] for name in ("embedded_gaussian", "pointwise"))
    assert attention["nats_per_dim"] <= 1.75
    assert control["nats_per_dim"] + 3 * control["standard_error"] >= 2.1
    assert control["nats_per_dim"] <= 2.2
    assert attention["outliers"] == 0
    assert attention["inverse_error_max"] <= 1e-4
    assert (tmp_path / "report.html").stat().st_size > 50_000
    check_samples(tmp_path / "model" / "embedded_gaussian-certified")


@torch.no_grad()
def check_samples(folder: Path) -> None:
    """1,000 samples: finite, scored as they were drawn, and inverted in either precision."""
    flow = with_estimator(open_flow(folder)[0], Exact())
    z = torch.randn(1000, 32, 2, generator=torch.Generator().manual_seed(0))
    for part in z.split(100):
        x, log_det = flow.bijection.inverse_and_log_det(part)
        assert bool(x.isfinite().all())
        drawn = flow.base.log_prob(part) - log_det
        assert float((flow.log_prob(x) - drawn).abs().max()) / 64 <= 1e-4
        assert float(inverse_errors(flow.bijection, x).max()) <= 1e-4
    wide = copy.deepcopy(flow).double()
    assert float(inverse_errors(wide.bijection, x.double()).max()) <= 1e-9
