"""Memory at the peak, every figure in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench_attention import LARGE
from forms import CHOSEN, FORMS, FORMULA, OPERATIONS
from results_file import ResultsFile

FOLDER = Path(__file__).resolve().parent
CASES = [(form, operation, LARGE) for form in FORMS for operation in OPERATIONS]
CASES += [("elu+1-row-sum", operation, 262144) for operation in ("value", "gradient", "log-det")]
CASES += [("exp-column", operation, tokens) for operation in ("value", "gradient") for tokens in (19402, 38804)]


@pytest.mark.parametrize(("form", "operation", "tokens"), CASES)
def bench_memory(form: str, operation: str, tokens: int, row: str, results: ResultsFile) -> None:
    """Ours at every size, the formula at 9,701 tokens."""
    names = [CHOSEN, FORMULA] if tokens == LARGE else [CHOSEN]
    results.keep(row, {"ours": CHOSEN, "peak_bytes": {name: peak(form, operation, tokens, name) for name in names}})


def peak(form: str, operation: str, tokens: int, variant: str) -> int:
    """Return what a process of its own measured."""
    paths = [str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / "peak.py"), form, operation, str(tokens), variant]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return int(finished.stdout)
