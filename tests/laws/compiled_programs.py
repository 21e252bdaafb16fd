"""Triton's compiler on the programs of attention, for GPUs that need not be there: nothing is run.

test_triton_kernels.py runs this file in a process of its own, without TRITON_INTERPRET.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from invattn.functional import triton_kernels
from invattn.functional.triton_attention import WIDEST, TritonKernels, block_of, padded

PROGRAMS = ("values", "gradients_by_rows", "gradients_by_columns")
SHARED = 48 * 2**10  # bytes of a block of threads that every GPU has


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(name: str, kernel: str, width: int, capability: int) -> Any:
    """Compile a program for factors and values of a width, causal and, where it can, with subtracted logits."""
    program = getattr(triton_kernels, name)
    block = block_of(padded(width))
    constants: dict[str, Any] = {"KERNEL": kernel, "CAUSAL": True, "WIDTH": width, "CHANNELS": width}
    constants |= {"PADDED_WIDTH": padded(width), "PADDED_CHANNELS": padded(width), "ROWS": block, "COLUMNS": block}
    constants |= {"SHIFTED": True} if name == "values" else {}
    types = {
        name: "constexpr" if name in constants else "i32" if name in ("rows", "columns") else "*fp32"
        for name in program.arg_names
    }
    places = {(program.arg_names.index(name),): constant for name, constant in constants.items()}
    source = ASTSource(fn=program, signature=types, constexprs=places)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": 4, "num_stages": 1})


def check(name: str, kernel: str, width: int, capability: int) -> None:
    found = compiled(name, kernel, width, capability)
    text = found.asm["ptx"]
    assert "fma.rn.f32" in text
    assert "tf32" not in text  # nor any other product of rounded factors:
    assert "mma" not in text
    assert found.metadata.shared <= SHARED
    assert found.asm["cubin"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_are_in_single_precision_and_blocks_fit(name: str) -> None:
    """With the kernel that has the most to compile."""
    check(name, "softplus", 12, 90)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize("width", [12, 64, WIDEST])
@pytest.mark.parametrize("kernel", TritonKernels.kernels)
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_width_and_generation_of_gpus(name: str, kernel: str, width: int, capability: int) -> None:
    check(name, kernel, width, capability)
