"""Autograd against finite differences: first and second derivatives by the tokens and by every parameter.

The other laws compare one automatic derivative with another; a value that was detached by mistake would fool both.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from .registry import BRANCHES, CERTIFIED, EVERY_RECIPE_AND_KIND, BlockCase, random_tokens


def as_function(case: BlockCase) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return the branch as a function of tokens and parameters, and a point to differentiate at."""
    branch = case.branch(seed=1, tokens=2)
    names = [name for name, _ in branch.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(branch, dict(zip(names, values, strict=True)), (x,))
        return result

    point = (random_tokens(1, 2, seed=3), *branch.parameters())
    return function, tuple(tensor.detach().clone().requires_grad_() for tensor in point)


@pytest.mark.parametrize("case", BRANCHES, ids=str)
def test_first_derivatives(case: BlockCase) -> None:
    function, point = as_function(case)
    assert torch.autograd.gradcheck(function, point, fast_mode=True, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", EVERY_RECIPE_AND_KIND, ids=str)
def test_second_derivatives_by_the_tokens(case: BlockCase) -> None:
    function, (x, *values) = as_function(case)
    fixed = [value.detach() for value in values]
    assert torch.autograd.gradgradcheck(lambda t: function(t, *fixed), (x,), fast_mode=True, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", BRANCHES, ids=str)
def test_every_entry_of_the_first_derivatives(case: BlockCase) -> None:
    function, point = as_function(case)
    assert torch.autograd.gradcheck(function, point, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", CERTIFIED, ids=str)
def test_every_entry_of_the_second_derivatives_by_the_tokens(case: BlockCase) -> None:
    function, (x, *values) = as_function(case)
    fixed = [value.detach() for value in values]
    assert torch.autograd.gradcheck(lambda t: function(t, *fixed), (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda t: function(t, *fixed), (x,), check_fwd_over_rev=True)
