"""Activations have the constants they state: never exceeded, and attained."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from invattn.lipschitz import ACTIVATIONS, Activation, LeakyReLU, LipSwish, make_activation
from invattn.lipschitz.activations import GELU_SLOPE, SWISH_SLOPE

every_activation = pytest.mark.parametrize("name", list(ACTIVATIONS))


def slope(activation: Activation, x: Tensor) -> Tensor:
    point = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(activation(point).sum(), point, create_graph=True)
    return grad


@every_activation
def test_the_constant_is_never_exceeded_on_a_fine_grid_and_attained(name: str) -> None:
    activation = make_activation(name).double()
    grid = torch.cat([torch.linspace(-50, 50, 200001, dtype=torch.float64), torch.logspace(-12, 12, 999).double()])
    steepest = float(slope(activation, torch.cat([grid, -grid])).detach().abs().max())
    assert steepest <= activation.lipschitz * (1 + 1e-14)
    assert steepest >= activation.lipschitz * (1 - 1e-6)
    assert activation.lipschitz <= 1


@every_activation
def test_no_ascent_of_the_slope_exceeds_the_constant(name: str) -> None:
    activation = make_activation(name).double()
    point = torch.linspace(-8, 8, 41, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([point], lr=0.05)
    for _ in range(150):
        steepness = slope(activation, point).abs()
        assert float(steepness.detach().max()) <= activation.lipschitz * (1 + 1e-14)
        if not steepness.requires_grad:
            return  # the slope is constant where it exists
        (step,) = torch.autograd.grad(-steepness.sum(), point, materialize_grads=True)
        optimizer.zero_grad()
        point.grad = step
        optimizer.step()


@every_activation
def test_no_pair_is_stretched_by_more(name: str) -> None:
    """Not only where the function is differentiable: jumps and kinks are between some pair."""
    activation = make_activation(name).double()
    generator = torch.Generator().manual_seed(0)
    x = 30 * torch.randn(100000, dtype=torch.float64, generator=generator)
    x = torch.cat([x, torch.linspace(19.9, 20.1, 100001, dtype=torch.float64)])
    step = torch.logspace(-6, 1, len(x), dtype=torch.float64)
    with torch.no_grad():
        moved = (activation(x + step) - activation(x)).abs()
    assert bool((moved <= activation.lipschitz * step + 1e-14 * (1 + x.abs())).all())


@pytest.mark.parametrize("beta", [-5.0, 0.0, 0.5, 4.0, 20.0])
def test_the_constant_of_lipswish_holds_for_every_beta(beta: float) -> None:
    activation = LipSwish().double()
    with torch.no_grad():
        activation.beta.fill_(beta)
    sharpness = math.log1p(math.exp(beta)) if beta < 20 else beta
    grid = torch.linspace(-40, 40, 400001, dtype=torch.float64) / sharpness
    steepest = float(slope(activation, grid).detach().abs().max())
    assert steepest <= activation.lipschitz * (1 + 1e-14)
    assert steepest >= activation.lipschitz * (1 - 1e-6)


def test_the_constants_are_the_maxima_of_their_slopes() -> None:
    """u tanh(u / 2) = 2 by bisection, in place of the number in the code; the Gaussian's maximum is at sqrt(2)."""
    low, high = 2.0, 3.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.tanh(middle / 2) < 2 else (low, middle)
    sigmoid = 1 / (1 + math.exp(-low))
    assert pytest.approx(sigmoid + low * sigmoid * (1 - sigmoid), rel=1e-15) == SWISH_SLOPE
    assert pytest.approx(0.5 + low / 4, rel=1e-15) == SWISH_SLOPE
    x = math.sqrt(2)
    phi = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    assert pytest.approx(0.5 * math.erfc(-x / math.sqrt(2)) + x * phi, rel=1e-15) == GELU_SLOPE


def test_the_unscaled_functions_exceed_one() -> None:
    """The peers' mistake: GELU and SiLU are not 1-Lipschitz."""
    x = torch.tensor([math.sqrt(2), 2.4], dtype=torch.float64).requires_grad_()
    (gelu,) = torch.autograd.grad(torch.nn.functional.gelu(x).sum(), x)
    (silu,) = torch.autograd.grad(torch.nn.functional.silu(x).sum(), x)
    assert float(gelu[0]) > 1.12
    assert float(silu[1]) > 1.09


@every_activation
def test_first_and_second_derivatives(name: str) -> None:
    activation = make_activation(name).double()
    x = torch.tensor([-7.3, -1.1, -0.2, 0.3, 1.7, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(activation, (x,))
    assert torch.autograd.gradgradcheck(activation, (x,))


@every_activation
def test_the_derivative_without_a_graph_is_the_slope(name: str) -> None:
    activation = make_activation(name).double()
    x = torch.linspace(-9, 9, 101, dtype=torch.float64)
    found = activation.derivative(x)
    assert not found.requires_grad
    torch.testing.assert_close(found, slope(activation, x).detach(), rtol=1e-12, atol=1e-12)


def test_three_derivatives_of_lipswish_are_those_of_its_formula() -> None:
    """By x and by beta, mixed: what stands in the code is made for two orders, and lets a third one follow."""
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    activation = LipSwish().double()

    def formula(x: Tensor) -> Tensor:
        return x * torch.sigmoid(torch.nn.functional.softplus(activation.beta) * x) / 1.1

    def third(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        inputs = (x, activation.beta)
        found = [function(function(x))]
        for _ in range(3):
            found = list(torch.autograd.grad(sum(part.sin().sum() for part in found), inputs, create_graph=True))
        return found

    for one, other in zip(third(activation), third(formula), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    # Without a graph the second order goes another way.
    first = torch.autograd.grad(activation(x).square().sum(), x, create_graph=True)[0].square().sum()
    inputs = (x, activation.beta)
    recorded = torch.autograd.grad(first, inputs, create_graph=True)
    for one, other in zip(torch.autograd.grad(first, inputs), recorded, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


@every_activation
def test_derivatives_of_extreme_inputs_are_finite(name: str) -> None:
    activation = make_activation(name)
    x = torch.tensor([-1e30, -1e15, -30.0, 0.0, 30.0, 1e15, 1e30]).requires_grad_()
    first = slope(activation, x)
    assert activation(x).isfinite().all()
    assert first.isfinite().all()
    (second,) = torch.autograd.grad(first.sum(), x, materialize_grads=True, allow_unused=True)
    assert second.isfinite().all()


def test_scaled_functions_are_the_known_ones() -> None:
    x = torch.linspace(-9, 9, 101, dtype=torch.float64)
    torch.testing.assert_close(make_activation("gelu")(x) * GELU_SLOPE, torch.nn.functional.gelu(x))
    torch.testing.assert_close(make_activation("silu")(x) * SWISH_SLOPE, torch.nn.functional.silu(x))
    torch.testing.assert_close(make_activation("softplus")(x), torch.nn.functional.softplus(x))
    expected = x * torch.sigmoid(math.log1p(math.exp(0.5)) * x) / 1.1
    torch.testing.assert_close(make_activation("lipswish").double()(x).detach(), expected)
    assert "lipschitz=1" in repr(make_activation("elu"))


def test_unknown_names_and_steep_slopes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"activation 'lipswich'. Did you mean 'lipswish'\?"):
        make_activation("lipswich")
    for bad in (1.5, -2.0, float("nan")):
        with pytest.raises(ValueError, match="between -1 and 1"):
            LeakyReLU(bad)
    assert "slope=-0.5" in repr(LeakyReLU(-0.5))
