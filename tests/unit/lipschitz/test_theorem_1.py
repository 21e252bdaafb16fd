"""Theorem 1 as a function, and the constants with which its conditions hold."""

from __future__ import annotations

import math

import pytest
import torch

from invattn.lipschitz import theorem_1
from invattn.lipschitz.theorems import Conditions


def test_the_constant_of_the_paper() -> None:
    assert theorem_1(2.0, 3.0, 5.0, 7.0) == 2 * 3 + 5 * 7
    assert theorem_1(1.0, 0.9, 0.0, 0.0) == 0.9


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("number", [-1e-9, math.inf, math.nan])
def test_a_condition_that_does_not_hold_is_refused_by_name(position: int, number: float) -> None:
    numbers = [1.0, 1.0, 1.0, 1.0]
    numbers[position] = number
    name = ("mu_r", "c_f", "mu_f", "c_r")[position]
    with pytest.raises(ValueError, match=rf"{name} must be finite and not negative; got {number}\. Theorem 1 needs"):
        theorem_1(*numbers)


def test_tensors_are_differentiated() -> None:
    c_f, c_r = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([5.0, 7.0], requires_grad=True)
    constant = theorem_1(0.5, c_f, 4.0, c_r)
    assert constant.tolist() == [21.0, 29.5]
    constant.sum().backward()
    assert c_f.grad is not None
    assert c_r.grad is not None
    assert (c_f.grad.tolist(), c_r.grad.tolist()) == ([0.5, 0.5], [4.0, 4.0])


@pytest.mark.parametrize("tokens", [1, 16, 9701])
def test_what_the_conditions_leave_to_the_output_map(tokens: int) -> None:
    """|W_V| = 2, kappa alpha |W_Q| = 3, kappa alpha |W_K| = 4: the printed products, by hand."""
    rows = Conditions.by_rows(value_norm=2.0, logits=7.0)
    assert rows.constant == 9.0
    assert rows.output_constant(0.9) == pytest.approx(0.1)
    columns = Conditions.by_columns(value_norm=2.0, logits=7.0, tokens=tokens)
    assert columns.constant == 2 + 7 * tokens
    frobenius = Conditions.frobenius(value_norm=2.0, query=3.0, key=4.0, tokens=tokens)
    assert frobenius.constant == pytest.approx(tokens**0.5 * (2 + 3 / 2**0.5) + 2 * tokens)
    assert {rows.norm, columns.norm, frobenius.norm} == {"max over tokens", "sum over tokens", "Frobenius"}
