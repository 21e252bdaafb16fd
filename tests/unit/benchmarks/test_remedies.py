from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from invattn.experiments.kit.data.sets import ImageData
from invattn.recipes import Released


@pytest.fixture(scope="module")
def remedies(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("remedies")


def row_numbers(name: str, **changes: Any) -> dict[str, Any]:
    numbers = {
        "name": name,
        "remedy": 0,
        "change": "nothing",
        "v_score": 0.818,
        "mse": 169.032,
        "converged": 0.7,
        "spectral_radius": [0.5, 1.25, 0.75, None],
        "train_loss": [2.0, 1.5],
        "stopped_at": None,
    }
    return numbers | changes


def test_each_row_changes_one_thing(remedies: ModuleType, tmp_path: Path) -> None:
    options = remedies.parse(["--output", str(tmp_path), "--data-root", str(tmp_path)])
    plain = remedies.experiment(remedies.ROWS[0], options, tmp_path)
    assert (plain.data, plain.epochs, plain.train_size, plain.test_size) == ("cifar10", 100, 1000, 500)
    assert (plain.lr, plain.lipschitz, plain.iterations, plain.seed, plain.repeats) == (0.003, 0.9, 100, 0, 1)
    changed = {}
    for row in remedies.ROWS:
        config = remedies.experiment(row, options, tmp_path)
        settings = {name: value for name, value in config.settings().items() if plain.settings()[name] != value}
        fields = {name: value for name, value in vars(row.recipe).items() if vars(Released())[name] != value}
        changed[row.name] = settings | fields
    assert changed == {
        "released": {},
        "lr": {"lr": 0.0003},
        "phi-elu-plus-one": {"phi": "elu+1"},
        "phi-relu": {"phi": "relu"},
        "lipschitz": {"lipschitz": 0.5, "iterations": 200},
        "sum": {"column_sum": 1 / 3},
        "response-free": {"constrain_response": False},
        "total": {"normalize": "total"},
    }
    assert [row.number for row in remedies.ROWS] == [0, 1, 2, 2, 3, 4, 5, 6]


def test_the_key_depends_on_everything(remedies: ModuleType, tmp_path: Path) -> None:
    def key(row: int = 0, *arguments: str, fingerprint: str = "f") -> str:
        options = remedies.parse(["--output", str(tmp_path), *arguments])
        return str(remedies.cell_key(remedies.ROWS[row], options, fingerprint))

    keys = [
        key(),
        *(key(row) for row in range(1, 8)),
        key(0, "--epochs", "2"),
        key(0, "--seed", "1"),
        key(0, "--spectrum-images", "32"),
        key(fingerprint="other"),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key(0, "--output", str(tmp_path / "elsewhere"))


def test_the_table_says_what_was_measured(remedies: ModuleType, tmp_path: Path) -> None:
    options = remedies.parse(["--output", str(tmp_path), "--data-root", "/somewhere", "--results", str(tmp_path)])
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    data = ImageData("cifar10", images, images, "0123456789abcdef" * 4, (), "32x32")
    rows = [row_numbers("released"), row_numbers("lr", remedy=1, spectral_radius=[5e6], stopped_at=7)]
    remedies.write_table(rows, options, data)
    text = (tmp_path / "remedies.md").read_text()
    assert "| – | nothing | 81.8% | 169.032 | 70.0% | 0.75 | 1.250 | 33.3% | 1.5000 |" in text
    assert "| 1 | nothing | 81.8% | 169.032 | 70.0% | 5×10⁶ | 5×10⁶ | 100.0% | not finite at step 7 |" in text
    content = json.loads((tmp_path / "remedies.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["released", "lr"]
    assert content["spectrum_images"] == 3
    assert "/somewhere" not in text + json.dumps(content)
    assert str(tmp_path) not in text + json.dumps(content)


@pytest.mark.slow
def test_a_second_run_measures_nothing_again(
    remedies: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All rows on a handful of photographs; then the kept rows give the same table."""
    sizes = ["--epochs", "1", "--train-size", "32", "--test-size", "4", "--spectrum-images", "2"]
    arguments = ["--data", "photos", "--output", str(tmp_path / "run"), "--results", str(tmp_path / "docs"), *sizes]
    assert remedies.main([*arguments, "--only", "total"]) == 0
    assert not (tmp_path / "docs").exists()
    assert remedies.main(arguments) == 0
    assert capsys.readouterr().out.count("measured before, skipped") == 1
    first = (tmp_path / "docs" / "remedies.json").read_bytes()
    assert remedies.main(arguments) == 0
    assert capsys.readouterr().out.count("measured before, skipped") == 8
    assert (tmp_path / "docs" / "remedies.json").read_bytes() == first
