"""A solve that starts near its result."""

from __future__ import annotations

import pytest
import torch

from invattn import invertible_attention
from invattn.bijections import ConstantMemory, Squeeze
from invattn.solvers import Adaptive, NewtonKrylov, Picard, Solver


@pytest.mark.parametrize("solver", [Picard(), Adaptive(), NewtonKrylov()], ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("layout", ["tokens", "image"])
def test_a_close_input_needs_fewer_steps(solver: Solver, layout: str) -> None:
    block = invertible_attention(4, layout=layout, solver=solver).double()
    x = torch.randn(3, 12, 4, dtype=torch.float64) if layout == "tokens" else torch.randn(3, 4, 3, 4).double()
    with torch.no_grad():
        z = block(x)
        near = block(x + 1e-6 * torch.randn_like(x))
    before = block.solve(near).value
    cold, warm = block.solve(z), block.solve(z, start=before)
    assert bool(warm.converged.all())
    assert bool((warm.evaluations < cold.evaluations).all())
    assert float((warm.value - x).abs().max()) <= 1e-10
    assert bool((block.solve(z, start=x).num_steps == 0).all())


def test_any_start_leads_to_the_same_point() -> None:
    block = invertible_attention(4, layout="tokens").double()
    z = torch.randn(2, 5, 4, dtype=torch.float64)
    start = 10 * torch.randn_like(z)
    kept = start.clone()
    torch.testing.assert_close(block.solve(z, start=start).value, block.solve(z).value, rtol=1e-10, atol=1e-10)
    assert torch.equal(start, kept)


def test_a_start_must_be_like_the_target() -> None:
    block = invertible_attention(4, layout="tokens")
    with pytest.raises(ValueError, match=r"start must be like z, \(2, 5, 4\) torch.float32 .*; got \(2, 6, 4\)"):
        block.solve(torch.zeros(2, 5, 4), start=torch.zeros(2, 6, 4))
    with pytest.raises(ValueError, match=r"got .* torch.float64"):
        block.solve(torch.zeros(2, 5, 4), start=torch.zeros(2, 5, 4).double())


def test_a_block_passes_a_start_on_to_what_it_is_wrapped_around() -> None:
    block = invertible_attention(4).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        z = block(x)
    assert bool((ConstantMemory(block).solve(z, start=x).num_steps == 0).all())


def test_a_closed_form_has_no_use_for_a_start() -> None:
    z = torch.randn(1, 4, 2, 2)
    squeeze = Squeeze(2)
    assert torch.equal(squeeze.solve(z, start=torch.zeros(1, 1, 4, 4)).value, squeeze.solve(z).value)
