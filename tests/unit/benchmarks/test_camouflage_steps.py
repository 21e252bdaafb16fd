from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from invattn._files import read_json


@pytest.fixture(scope="module")
def steps(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("camouflage_steps")


def test_one_step_is_measured(steps: ModuleType) -> None:
    found = steps.measure("gaussian", "paper", side=48, backbone="small", steps=2)
    assert found["seconds"] > 0
    assert found["attention_cpu_seconds"] > 1e-4
    assert steps.measure("none", "none", side=48, backbone="small", steps=1)["attention_cpu_seconds"] < 1e-3
    assert found["peak_memory"] > 2**24
    # Two steps at a tiny rate from random weights: the cross-entropy of coin tosses is near log 2 at the least.
    assert 0.5 < found["loss"] < 3


def test_there_are_thirteen_networks_and_finished_ones_are_kept(
    steps: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(steps.variants()) == 13
    calls: list[list[str]] = []

    def answer(command: list[str], **_: object) -> argparse.Namespace:
        calls.append(command)
        kind, recipe = command[3:5]
        row = f'"attention": "{kind}", "recipe": "{recipe}", "seconds": 1, "cpu_seconds": 2, "peak_memory": 1073741824'
        row += ', "attention_cpu_seconds": 0.4'
        return argparse.Namespace(stdout="{" + row + "}\n")

    monkeypatch.setattr(steps.subprocess, "run", answer)
    options = argparse.Namespace(side=352, backbone="resnet50", steps=3, threads=2)
    rows = steps.measure_all(tmp_path, options)
    assert len(calls) == len(rows) == 13
    assert steps.measure_all(tmp_path, options) == read_json(tmp_path / "steps.json")["rows"]
    assert len(calls) == 13
    capsys.readouterr()
    table = steps.markdown(rows, side=352, threads=2)
    assert table.count("| 1.00 | 0.0% | 2.00 | 0.40 | 20.0% | +0.0% | 1.00 |") == 13
    # 20% is above the 15% of certified concatenation and below the 30% of certified embedded Gaussian.
    assert steps.complaints(rows) == ["attention takes 20% of a step of concatenation certified, not 15%"]
    assert steps.complaints([rows[0] | {"peak_memory": 11 * 2**30}]) == ["none none needs more than 10 GiB"]
