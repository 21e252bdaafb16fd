"""Every back end but the dense one needs memory in proportion to the tokens, for every derivative."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from invattn.functional import Response, attend, get_kernel
from invattn.testing import PeakMemory

from .registry import seeded

SHORT, LONG = 512, 1024
CASES = [
    ("streamed", "exp", "row", False),
    ("streamed", "elu+1", "column", False),
    ("streamed", "softplus", "total", False),
    ("fused", "exp", "row", False),
    ("fused", "exp", "column", False),
    ("sorted", "elu+1", "row", True),
    ("sorted", "relu", "column", True),
]


def step(backend: str, kernel: str, normalize: str, additive: bool) -> Callable[[int], None]:
    """Return a log-determinant step: value, gradients without a graph, and the gradient of a second-order product."""
    response = Response(get_kernel(kernel), normalize=normalize, additive=additive)

    def run(tokens: int) -> None:
        x, along = (torch.randn(1, 1, tokens, 4, generator=seeded(tokens + i)) for i in range(2))
        x.requires_grad_()
        factor = x[..., :1] if additive else x
        out = attend(factor, factor, x, response=response, backend=backend)
        (vector,) = torch.autograd.grad(out, x, along, retain_graph=True)
        (back,) = torch.autograd.grad(out, x, vector, create_graph=True)
        torch.autograd.grad((back * along).sum(), x)

    return run


def peak(run: Callable[[int], None], tokens: int) -> int:
    with PeakMemory() as memory:
        run(tokens)
    return memory.peak


@pytest.mark.parametrize(("backend", "kernel", "normalize", "additive"), CASES)
def test_memory_grows_as_the_tokens(
    monkeypatch: pytest.MonkeyPatch, backend: str, kernel: str, normalize: str, additive: bool
) -> None:
    monkeypatch.setattr("invattn.functional.streamed.TILE_SCORES", 2**14)
    run = step(backend, kernel, normalize, additive)
    short, long = peak(run, SHORT), peak(run, LONG)
    assert long <= 2.2 * short
    assert long <= 4 * LONG**2  # one map; the dense form holds more than ten


def test_the_dense_form_grows_as_the_square() -> None:
    """The count sees what it should see."""
    run = step("dense", "exp", "row", False)
    assert peak(run, LONG) >= 3.5 * peak(run, SHORT)


def resident_growth(kind: str, recipe: str, tokens: int) -> float:
    """MiB by which one training step with log-determinant raises the resident memory of a fresh process."""
    code = f"""
import resource
import torch
import invattn
from invattn.logdet import PowerSeries

torch.set_num_threads(1)
block = invattn.invertible_attention(
    12, kind={kind!r}, recipe={recipe!r}, layout="tokens", log_det_estimator=PowerSeries(terms=2)
)
def step(tokens):
    z, log_det = block.forward_and_log_det(torch.randn(1, tokens, 12))
    (z.square().sum() - log_det.sum()).backward()
step(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step({tokens})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    # glibc keeps freed blocks of tiles: without these the figure would be one of fragmentation.
    calm = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **calm}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "recipe"),
    [("embedded_gaussian", "certified"), ("embedded_gaussian", "paper"), ("dot_product", "certified")],
)
def test_resident_memory_at_9701_tokens(kind: str, recipe: str) -> None:
    """The dense form takes 11 maps of 359 MiB for this step; a tenth of that is allowed, some 30 MiB are needed."""
    assert resident_growth(kind, recipe, 9701) <= 390


@pytest.mark.slow
def test_resident_memory_of_sorted_sums() -> None:
    assert resident_growth("concatenation", "certified", 9701) <= 100
