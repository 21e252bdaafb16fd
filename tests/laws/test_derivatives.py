"""Autograd against finite differences: first and second derivatives by the inputs and by every parameter.

The other laws compare one automatic derivative with another; a value that was detached by mistake would fool both.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from .registry import BRANCHES, CERTIFIED, CHAINS, EVERY_RECIPE_AND_KIND, AnyCase


def as_function(case: AnyCase) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return the branch as a function of inputs and parameters, and a point to differentiate at."""
    branch = case.branch(seed=1, tokens=2)
    names = [name for name, _ in branch.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(branch, dict(zip(names, values, strict=True)), (x,))
        return result

    point = (case.inputs(1, 2, seed=3), *branch.parameters())
    return function, tuple(tensor.detach().clone().requires_grad_() for tensor in point)


@pytest.mark.parametrize("case", [*BRANCHES, *CHAINS], ids=str)
def test_first_derivatives(case: AnyCase) -> None:
    function, point = as_function(case)
    assert torch.autograd.gradcheck(function, point, fast_mode=True, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", [*EVERY_RECIPE_AND_KIND, *CHAINS], ids=str)
def test_second_derivatives_by_the_tokens(case: AnyCase) -> None:
    function, (x, *values) = as_function(case)
    fixed = [value.detach() for value in values]
    assert torch.autograd.gradgradcheck(lambda t: function(t, *fixed), (x,), fast_mode=True, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*BRANCHES, *CHAINS], ids=str)
def test_every_entry_of_the_first_derivatives(case: AnyCase) -> None:
    function, point = as_function(case)
    assert torch.autograd.gradcheck(function, point, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CERTIFIED, *CHAINS], ids=str)
def test_every_entry_of_the_second_derivatives_by_the_tokens(case: AnyCase) -> None:
    function, (x, *values) = as_function(case)
    fixed = [value.detach() for value in values]
    assert torch.autograd.gradcheck(lambda t: function(t, *fixed), (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda t: function(t, *fixed), (x,), check_fwd_over_rev=True)
