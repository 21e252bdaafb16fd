"""The measurement that the learning rate of the quick camouflage networks was chosen on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from invattn.experiments.camouflage import synthetic as synthetic_camouflage
from invattn.experiments.camouflage.config import QUICK, CamouflageConfig
from invattn.experiments.camouflage.record import CamouflageRecord
from invattn.experiments.camouflage.synthetic import SyntheticCamouflage, read_source

TINY = {"image_size": 33, "train_size": 8, "test_size": 2, "pretrain_epochs": 0}


@pytest.fixture(scope="module")
def choice(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("camouflage_choice")


def test_held_out_pictures_serve_no_training_and_no_test_picture_is_read(
    choice: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read = synthetic_camouflage.SOURCES, set()

    def watched(file: str) -> torch.Tensor:
        read.add(file)
        return read_source(file)

    monkeypatch.setattr(synthetic_camouflage, "read_source", watched)
    with choice.held_out_pictures():
        for part, files in (("train", 14), ("test", 3)):
            read.clear()
            pairs = SyntheticCamouflage(part, count=20, side=32, difficulty=0.0, seed=0)
            for number in range(20):
                pairs.pair(number)
            assert len(read) == files
            assert read <= set(before["train"])
            assert (read == set(choice.HELD_OUT)) == (part == "test")
            assert part == "test" or not read & set(choice.HELD_OUT)
    assert synthetic_camouflage.SOURCES is before


def test_the_options_of_quick_are_among_those_measured(choice: ModuleType) -> None:
    assert (QUICK["epochs"], QUICK["lr"]) in choice.SETTINGS
    assert math.isclose(choice.LAST_RATE ** (1 / QUICK["epochs"]), QUICK["lr_decay"])


def test_a_setting_is_trained_and_stands_in_the_table(choice: ModuleType, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    options = {**QUICK, **TINY, "workers": 1, "preview": False, "resume": True}
    base = CamouflageConfig(output=tmp_path, attention="none", repeats=2, **options)
    try:
        record = CamouflageRecord.from_json(choice.measure((1, 1e-3), base=base))
    finally:
        torch.set_num_threads(threads)
    assert (record.settings["epochs"], record.settings["lr"]) == (1, 1e-3)
    assert record.settings["lr_decay"] == choice.LAST_RATE
    each = [row.sets["synthetic"].s_measure for row in record.rows]
    text = choice.markdown([record])
    assert f"| 1 | 0.001 | Base (no attention) | {each[0]:.3f} / {each[1]:.3f} | {sum(each) / 2:.3f} |" in text
