from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "convolution_bounds.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convolution_bounds_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
