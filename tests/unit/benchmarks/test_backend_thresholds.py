from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FORMS = ["--forms", "exp-row", "elu+1-row-sum", "--sizes", "8x2", "--repeats", "1"]


@pytest.fixture(scope="module")
def benchmark(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("backend_thresholds")


def test_the_table_says_what_was_measured(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*FORMS, "--results", str(tmp_path), "--output", str(tmp_path / "rows")]
    assert benchmark.main(arguments) == 0
    assert "exp-row, 8 tokens, batch 2: measured" in capsys.readouterr().out
    content = json.loads((tmp_path / "backend_thresholds.json").read_text())
    product, additive = content["rows"]
    assert set(product["operations"]) == set(benchmark.OPERATIONS)
    for found in product["operations"].values():
        assert found["seconds"] > 0
        assert list(found["speed"]) == ["dense", "fused", "streamed", "chosen"]
    assert list(additive["operations"]["value"]["speed"]) == ["dense", "streamed", "sorted", "chosen"]
    text = (tmp_path / "backend_thresholds.md").read_text()
    value = product["operations"]["value"]
    speeds = " | ".join(f"{speed:.2f}x" for speed in value["speed"].values())
    assert f"| 8 x 2 | value | {1000 * value['seconds']:.1f} ms | {speeds} |" in text
    assert str(tmp_path) not in text + json.dumps(content)
    assert content["command"] == " ".join(["python benchmarks/backend_thresholds.py", *FORMS])


def test_measured_rows_are_kept_and_those_of_other_options_are_not(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--sizes",
        "8x2",
        "--operations",
        "value",
        "--results",
        str(tmp_path),
        "--output",
        str(tmp_path / "rows"),
    ]
    measured = []
    for options in (["exp-row"], ["exp-row", "softplus-row"], ["exp-row", "--repeats", "1"]):
        assert benchmark.main(["--forms", *options, *arguments]) == 0
        measured.append([line.endswith(": measured") for line in capsys.readouterr().out.splitlines()[:-1]])
    assert measured == [[True], [False, True], [True]]
    first = json.loads((tmp_path / "rows" / "softplus-row-8x2.json").read_text())["row"]
    assert first["form"] == "softplus-row"
