from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("convolution_bounds")


def test_one_command_writes_the_page(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    script.main(["--largest", "1", "--output", str(page)])
    text = page.read_text(encoding="utf-8")
    assert "`python benchmarks/convolution_bounds.py`, invattn " in text
    assert "below it: 0." in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert rows[2].startswith("| 1 | 1.000 | 1.000 | ")
    assert "the largest ratio is 1.000000000." in text


def test_a_bound_below_the_truth_is_counted(script: ModuleType) -> None:
    rows = [
        script.Row("random", taps, mode, (1, 1), ratio, 1.5)
        for taps in (3, 5)
        for mode, ratio in (("zero", 0.999), ("zero", 1.2), ("circular", 1.0))
    ]
    text = script.report(rows)
    assert "below it: 2." in text
    assert "| 1 | 1.099 | 1.200 | 1.500 | 1.500 | 1.099 | 1.200 |" in text
