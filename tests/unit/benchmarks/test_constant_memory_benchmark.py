from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("constant_memory")


def test_the_table_says_what_was_measured(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = benchmark.Setting("tokens", (2, 4, 4), blocks=(2, 3))
    monkeypatch.setattr(benchmark, "SETTINGS", (small,))
    assert benchmark.main(["--repeats", "1", "--terms", "1", "--results", str(tmp_path)]) == 0
    assert "tokens 2 x 4 x 4, 3 blocks: measured" in capsys.readouterr().out
    content = json.loads((tmp_path / "constant_memory.json").read_text())
    assert [row["blocks"] for row in content["rows"]] == [2, 3]
    for row in content["rows"]:
        ordinary, constant, some, every = row["modes"]
        assert ordinary["memory_ratio"] == ordinary["time_ratio"] == 1
        assert ordinary["drift"] is None
        for mode in (constant, some, every):
            assert mode["gradient_difference"] < 1e-5
            assert mode["memory_ratio"] == mode["peak_bytes"] / ordinary["peak_bytes"]
            assert mode["drift"] < 1e-5
    assert constant["memory_ratio"] < 1
    text = (tmp_path / "constant_memory.md").read_text()
    assert (
        f"|  | constant memory | {constant['peak_bytes'] / 2**20:.1f} MiB | {100 * constant['memory_ratio']:.1f}% |"
        in text
    )
    assert "--terms 1 --repeats 1`" in text
    assert str(tmp_path) not in text + json.dumps(content)
