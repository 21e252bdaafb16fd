from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from invattn.recipes import Certified, Paper


@pytest.fixture(scope="module")
def recall(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("recall")


def test_every_token_asks_for_the_value_beside_its_key(recall: ModuleType) -> None:
    x, wanted = recall.draw(3, torch.Generator().manual_seed(0))
    assert x.shape == (3, 16, 12)
    for sample, values in zip(x, wanted, strict=True):
        for token, value in zip(sample, values, strict=True):
            (owner,) = (other for other in sample if torch.equal(other[4:8], token[:4]))
            assert torch.equal(owner[8:], value)


def test_a_block_that_adds_nothing_has_error_one(recall: ModuleType) -> None:
    block = recall.train(Certified(), steps=0, seed=0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    measured = recall.measure(block, seed=0)
    assert measured.error == pytest.approx(1)
    assert measured.right_weight == pytest.approx(1 / 16)
    assert measured.inverted == 1


def test_the_command_writes_both_files(
    recall: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recall, "ROWS", (("proof", Certified()), ("none", Paper())))
    monkeypatch.setattr(recall, "TEST", 8)
    assert recall.main(["--steps", "3", "--seeds", "2", "--results", str(tmp_path)]) == 0
    assert "table: " in capsys.readouterr().out
    proof, none = json.loads((tmp_path / "recall.json").read_text())["rows"]
    assert [run["bound"] is None for run in (*proof["runs"], *none["runs"])] == [False, False, True, True]
    assert proof["runs"][0] != proof["runs"][1]
    page = (tmp_path / "recall.md").read_text()
    assert "| proof | " in page
    assert page.count("none |") == 2
