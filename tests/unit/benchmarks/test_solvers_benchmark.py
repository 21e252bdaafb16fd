from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "solvers.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("solvers_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_solver_is_measured_on_the_same_targets_and_shown(benchmark: ModuleType) -> None:
    case = next(benchmark.random_cases(0))
    rows = benchmark.measure(case, rounds=1)
    assert [row["solver"] for row in rows] == list(benchmark.SOLVERS)
    assert all(row["converged"] == 1 and row["worst_error"] < 1e-4 for row in rows)
    assert rows[0]["time_ratio"] == 1
    head = {"random": "Random", "trained": "Trained", "command": "the command", "versions": {"torch": "2"}}
    failed = rows[0] | {"weights": "trained", "converged": 0.999, "worst_error": None}
    page = benchmark.markdown([*rows, failed], head)
    assert page.count("\n| certified, 0.5, weights 2 | gaussian |") == len(rows) + 1
    assert page.rstrip().splitlines()[-1].startswith("Command: `the command`; torch 2")
    assert "| 99% |" in page  # a share below one never reads 100%
    assert page.index("## Random") < page.index("| NewtonKrylov |") < page.index("## Trained") < page.index("| – |")
