from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from invattn._files import read_json, write_json
from invattn.experiments.camouflage.record import CamouflageRecord, CamouflageRow, MapMetrics


@pytest.fixture(scope="module")
def table(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("camouflage_table")


def row(recipe: str, s_measure: float, *, seed: int = 0, kind: str = "gaussian") -> CamouflageRow:
    names = ("f_mean", "f_max", "f_adaptive", "f_weighted", "e_mean", "e_max", "e_adaptive")
    metrics = MapMetrics(s_measure=s_measure, **dict.fromkeys(names, 0.7), mae=0.1, images=4)
    inverse = {"error_max": 2e-6, "error_median": 1e-7, "converged": 1.0, "images": 4}
    return CamouflageRow(
        attention=kind,
        recipe=recipe,
        seed=seed,
        sets={"synthetic": metrics},
        parameters=1000,
        seconds=10.0,
        peak_memory=2**30,
        certificate={"bound": 0.9, "norm": "inf,2"} if recipe == "certified" else None,
        inverse=None if kind == "none" else inverse,
        train_loss=[0.4, 0.1],
        extra={"repeat": seed, "s_each": {"synthetic": [s_measure]}},
    )


ROWS = [row("none", 0.83, kind="none")]
ROWS += [row(recipe, 0.8 + 0.01 * seed, seed=seed) for recipe in ("unconstrained", "certified") for seed in (0, 1, 2)]


def record(rows: list[CamouflageRow]) -> CamouflageRecord:
    data: dict[str, Any] = {"name": "synthetic", "train": 8, "sets": {"synthetic": 4}, "notes": ["no picture twice"]}
    data |= {"mean_mask": {"synthetic": 0.64}, "fingerprint": "ab12"}
    versions = {"torch": "2.13.0"}
    return CamouflageRecord(command="invattn X", seed=0, versions=versions, data=data, settings={}, rows=rows)


def test_the_table_shows_every_seed_and_the_paired_difference(table: ModuleType) -> None:
    text = table.markdown(record(ROWS))
    assert "mean mask S 0.640" in text
    certified = (
        "| Gaussian, certified | 0.800 / 0.810 / 0.820 | 0.810 | 0.700 | 0.700 | 0.100 | +0.160 | 0.400 to 0.100 |"
    )
    assert certified in text
    assert "| Gaussian | synthetic | +0.000 ± 0.000 | +0.000 / +0.000 / +0.000 |" in text
    assert "2.0e-6" in text
    assert "Note: no picture twice." in text
    assert table.failures(record(ROWS)) == []


def test_what_is_not_shown_is_named(table: ModuleType) -> None:
    weak = row("certified", 0.70)
    assert table.failures(record([weak])) == [
        "gaussian-certified, seed 0: S 0.700 is less than 0.15 above the mean mask"
    ]
    assert "the loss did not fall" in table.failures(record([replace(ROWS[0], train_loss=[0.1, 0.1])]))[0]
    lost = replace(ROWS[-1], inverse={"error_max": None})
    assert "not inverted" in table.failures(record([lost]))[0]
    assert "not measured" in table.failures(record([replace(ROWS[0], sets={})]))[0]
    apart = [row("unconstrained", 0.83), row("certified", 0.80)]
    assert table.failures(record(apart)) == ["gaussian: certified less unconstrained is -0.030"]


def test_one_command_runs_and_writes_numbers_only(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def train(command: list[str], **_: object) -> argparse.Namespace:
        commands.append(command)
        write_json(tmp_path / "results.json", record(ROWS).to_json())
        return argparse.Namespace(returncode=len(commands) - 1)

    monkeypatch.setattr(table.subprocess, "run", train)
    options = ["--output", str(tmp_path), "--results", str(tmp_path / "docs")]
    assert table.main(options) == 0
    assert "7 networks" in capsys.readouterr().out
    assert commands[0][commands[0].index("--repeats") + 1] == "3"
    assert "--resume" in commands[0]
    assert "s_each" not in str(read_json(tmp_path / "docs" / "camouflage.json"))
    (tmp_path / "docs" / "camouflage.md").unlink()
    assert table.main(options) == 1  # the training failed: the table of before is not written again
    assert not (tmp_path / "docs" / "camouflage.md").exists()
