"""No input that float32 can hold makes a block or its gradient infinite."""

from __future__ import annotations

import pytest
import torch

from invattn.logdet import PowerSeries

from .registry import CHAINS, EVERY_RECIPE_AND_KIND, SOME_CERTIFIED, AnyCase, BlockCase, random_tokens


@pytest.mark.parametrize("scale", [1e-6, 1e4])
@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("case", EVERY_RECIPE_AND_KIND, ids=str)
def test_values_and_gradients_are_finite_in_every_recipe(case: BlockCase, num_heads: int, scale: float) -> None:
    block = BlockCase(case.kind, case.recipe, num_heads).block(seed=0, dtype=torch.float32)
    x = random_tokens(scale=scale, dtype=torch.float32).requires_grad_()
    z = block(x)
    assert z.isfinite().all()
    z.sum().backward()
    for tensor in (x, *block.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e4, 1e15, 1e30])
@pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)
def test_a_certified_block_inverts_and_has_a_log_det_at_any_scale(case: AnyCase, scale: float) -> None:
    block = case.block(seed=1, dtype=torch.float32, log_det_estimator=PowerSeries(terms=5))
    x = case.inputs(scale=scale, dtype=torch.float32).requires_grad_()
    z, log_det = block.forward_and_log_det(x)
    assert log_det.isfinite().all()
    (z.sum() + log_det.sum()).backward()
    for tensor in (x, *block.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    back = block.inverse(z.detach())
    assert float((back - x).detach().abs().max()) <= 1e-4 * max(1.0, scale)


@pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)
def test_zero_tokens_have_a_finite_gradient(case: AnyCase) -> None:
    """At zero the squash is z / sqrt(1 + 0): an epsilon in its place would bias it."""
    block = case.block(seed=2)
    x = case.inputs(1, scale=0.0).requires_grad_()
    block(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert float(block.inverse(block(x).detach()).detach().abs().max()) < 1e-11


@pytest.mark.parametrize("case", [*EVERY_RECIPE_AND_KIND, *CHAINS], ids=str)
def test_weights_of_zero_have_a_finite_gradient(case: AnyCase) -> None:
    block = case.block(seed=3)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    x = case.inputs().requires_grad_()
    block(x).sum().backward()
    for tensor in (x, *block.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    if block.certified:
        assert block.lipschitz_bound().value <= 0.9
        assert torch.equal(block.inverse(x.detach()), x.detach())
