from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("solvers")


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
