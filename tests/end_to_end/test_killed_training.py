"""SIGKILL at five seeded moments of a training, then resuming: every bit is that of an undisturbed training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SCRIPT = Path(__file__).with_name("killed_training.py")
STEPS, STEPS_PER_EPOCH = 24, 8


def assert_same(left: Any, right: Any, where: str = "state") -> None:
    if isinstance(left, Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{where}.{number}")
    else:
        assert left == right, where


def test_five_kills_leave_no_trace_in_weights_average_optimizer_and_schedule(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    for optimizer, kills in json.loads(finished.stdout).items():
        assert [kill["status"] for kill in kills] == [-9] * 5
        assert len({kill["place"] for kill in kills}) == 5
        assert any(kill["step"] % STEPS_PER_EPOCH for kill in kills), "one kill must be in the middle of an epoch"
        saving = [kill for kill in kills if kill["place"] in ("half_saved", "before_the_rename")]
        assert [kill["tmp"] for kill in saving] == [1, 1], "the temporary file must have existed"
        assert len({kill["saved"] for kill in kills} - {0, STEPS}) >= 3, "the kills must hit different states"
        whole, killed = (
            torch.load(tmp_path / optimizer / f"{name}.ckpt", weights_only=True) for name in ("whole", "killed")
        )
        assert whole["global_step"] == len(whole["step_losses"]) == STEPS
        average = [name for name in whole["state_dict"] if name.startswith("average.")]
        weights = [name.replace("average.", "flow.", 1) for name in average]
        assert any(
            not torch.equal(whole["state_dict"][one], whole["state_dict"][other])
            for one, other in zip(average, weights, strict=True)
        )
        assert len(whole["optimizer_states"][0]["state"]) > 5
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "step_losses", "global_step", "loops"):
            assert_same(whole[part], killed[part], part)
