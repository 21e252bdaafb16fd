"""Options and fixtures of the benchmarks: rows that are in the file are not measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from results_file import ResultsFile, default_path
from turns import CPU, WALL, Turns

COMMAND = "make bench"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("invattn")
    group.addoption(
        "--results", type=Path, default=None, help="JSON file that grows; benchmarks/results/<machine>.json"
    )
    group.addoption(
        "--wall", action="store_true", help="wall time on two threads, beside rows of seconds of the processor"
    )
    group.addoption("--again", action="store_true", help="measure rows again that are in the file")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> ResultsFile:
    """The file of rows."""
    return ResultsFile(request.config.getoption("--results") or default_path(), command=COMMAND)


@pytest.fixture
def row(request: pytest.FixtureRequest, results: ResultsFile) -> str:
    """The name of the row that a test measures: its file, function and parameters."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    name = request.node.name.removeprefix("bench_")
    what = WALL if request.config.getoption("--wall") else CPU
    kept = results.rows.get(name, {})
    if (what in kept or "peak_bytes" in kept) and not request.config.getoption("--again"):
        pytest.skip("measured before; --again measures it again")
    return name


@pytest.fixture
def turns(request: pytest.FixtureRequest, row: str, benchmark: Any, results: ResultsFile) -> Turns:
    """What times variants in turn; asks for the row first, so that a kept one is skipped before anything is made."""
    return Turns(benchmark, results, wall=request.config.getoption("--wall"))
