"""Triton's attention without a GPU: its laws in Triton's interpreter, and its compiler.

Both need a process of their own: one with TRITON_INTERPRET=1 before Triton is imported, one without.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"interpreted_laws.py": "1", "compiled_programs.py": "0"}
"""Files of tests, and TRITON_INTERPRET."""

with_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def run(name: str, *options: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, f"tests/laws/{name}"]
    environment = os.environ | {"TRITON_INTERPRET": PARTS[name]}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@with_triton
@pytest.mark.parametrize("name", PARTS)
def test_laws_and_compilation(name: str) -> None:
    run(name)


@with_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_the_rest_of_them(name: str) -> None:
    run(name, "-m", "slow")


def test_triton_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, torch; before = 'triton' in sys.modules; import invattn; x = torch.randn(1, 5, 4);"
        "invattn.invertible_attention(4, layout='tokens', backend='fused')(x);"
        "assert ('triton' in sys.modules) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
