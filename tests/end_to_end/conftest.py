"""The command line as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from invattn.cli.main import main

QUICK = "--attention gaussian --epochs 1 --repeats 1 --train-size 4 --test-size 2 --batch-size 2".split()
"""Options of a run that takes a second or two."""

ErrorLine = Callable[..., str]


@pytest.fixture
def error_line(capsys: pytest.CaptureFixture[str]) -> ErrorLine:
    """Run a quick ``invattn reconstruct`` that must fail with status 1; return the one line that it prints."""

    def run(*arguments: object) -> str:
        assert main(["reconstruct", *QUICK, *map(str, arguments)]) == 1
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("invattn: ")]
        assert len(lines) == 1, captured.err
        assert captured.err.splitlines()[-1] == lines[0]
        assert "Traceback" not in captured.err
        return lines[0]

    return run


@pytest.fixture
def start() -> Callable[..., "subprocess.Popen[str]"]:
    """Start ``invattn`` as a process of its own."""

    def run(*arguments: object, preexec: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
        program = "import sys; from invattn.cli.main import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=preexec,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return run


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
