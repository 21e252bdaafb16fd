"""F(V, R) and the bound of several heads."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from invattn.lipschitz import attention_constant, output_constant

sizes = st.floats(0, 50)


def constant(value: float, response: float) -> float:
    return float(attention_constant(*(torch.tensor(number, dtype=torch.float64) for number in (value, response))))


@given(value=sizes, response=sizes)
def test_it_is_the_maximum_it_comes_from(value: float, response: float) -> None:
    """F = max over u in [0, 1] of V (1 - u^2) + R u, here on a grid."""
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)
    best = float((value * (1 - grid**2) + response * grid).max())
    assert constant(value, response) == pytest.approx(best, rel=1e-6, abs=1e-12)


@given(value=sizes, response=sizes, scale=st.floats(0.01, 100))
def test_order_and_homogeneity(value: float, response: float, scale: float) -> None:
    found = constant(value, response)
    assert max(value, response) <= found * (1 + 1e-12)
    assert found <= math.hypot(value, response) * (1 + 1e-12)
    assert constant(scale * value, scale * response) == pytest.approx(scale * found, rel=1e-9, abs=1e-12)


def test_named_values() -> None:
    assert constant(1, 0) == 1
    assert constant(1, 1) == 1.25
    assert constant(1, 2) == 2
    assert constant(1, 4) == 4
    assert constant(0, 3) == 3
    assert constant(0, 0) == 0


def test_the_gradient_is_finite_everywhere_and_that_of_the_formula() -> None:
    for value, response, expected in (
        (1.0, 1.0, (0.75, 0.5)),
        (1.0, 2.0, (0.0, 1.0)),
        (1.0, 4.0, (0.0, 1.0)),
        (0.0, 3.0, (0.0, 1.0)),
        (1e-200, 1e-200, (0.75, 0.5)),
    ):
        numbers = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (value, response)]
        found = torch.autograd.grad(attention_constant(*numbers), numbers)
        assert [float(entry) for entry in found] == pytest.approx(expected)
    zeros = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert all(bool(entry.isfinite()) for entry in torch.autograd.grad(attention_constant(*zeros), zeros))


def pieces(heads: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    return output, torch.rand(heads, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_several_heads_take_the_smaller_of_both_bounds(heads: int) -> None:
    seen = set()
    for seed in range(20):
        output, constants = pieces(heads, seed)
        joint = float(torch.linalg.svd(output)[1][0] * constants.norm())
        width = 6 // heads
        parts = [torch.linalg.svd(output[:, h * width : (h + 1) * width])[1][0] for h in range(heads)]
        split = float(sum(part * c for part, c in zip(parts, constants, strict=True)))
        assert float(output_constant(output, constants)) == pytest.approx(min(joint, split), rel=1e-12)
        seen.add(joint <= split)
    if heads > 1:
        output = torch.zeros(6, 6, dtype=torch.float64)
        output[:, 0] = 1.0  # one head alone is used: the sum over heads is the better bound
        constants = torch.ones(heads, dtype=torch.float64)
        assert float(output_constant(output, constants)) == pytest.approx(6**0.5)


def test_constants_of_zero_have_a_finite_gradient() -> None:
    output, constants = torch.ones(4, 4, dtype=torch.float64).requires_grad_(), torch.zeros(2, dtype=torch.float64)
    grads = torch.autograd.grad(output_constant(output, constants.requires_grad_()), (output, constants))
    assert all(bool(grad.isfinite().all()) for grad in grads)
