"""log phi of every positive kernel: value, derivative and extremes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn.functional import KERNELS, get_kernel, log_elu_plus_one, log_softplus

POSITIVE = ["exp", "elu+1", "softplus"]
SCORES = [-700.0, -41.0, -40.0, -39.0, -20.5, -20.0, -19.5, -3.0, -1e-9, 0.0, 1e-9, 0.5, 3.0, 30.0, 700.0, 1e30]


def expected_log(name: str, score: float) -> float:
    """Written with the standard library alone."""
    if name == "exp":
        return score
    if name == "elu+1":
        return math.log1p(score) if score > 0 else score
    if score < -30:  # log(log1p(e^s)) = s - e^s / 2 + 5 e^2s / 24 - ...
        return score - math.exp(score) / 2
    return math.log(max(score, 0) + math.log1p(math.exp(-abs(score))))


def expected_slope(name: str, score: float) -> float:
    if name == "exp":
        return 1.0
    if name == "elu+1":
        return 1 / (1 + score) if score > 0 else 1.0
    if score < -30:
        return 1 - math.exp(score) / 2
    sigmoid = 1 / (1 + math.exp(-score)) if score > -700 else 0.0
    return sigmoid / (max(score, 0) + math.log1p(math.exp(-abs(score))))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", POSITIVE)
def test_the_logarithm_and_its_derivative(name: str, score: float) -> None:
    kernel = get_kernel(name)
    assert kernel.log_value is not None
    point = torch.tensor(score, dtype=torch.float64, requires_grad=True)
    value = kernel.log_value(point)
    (slope,) = torch.autograd.grad(value, point)
    assert float(value.detach()) == pytest.approx(expected_log(name, score), rel=1e-12, abs=1e-15)
    assert float(slope) == pytest.approx(expected_slope(name, score), rel=1e-9)
    assert kernel.kappa == 1.0
    assert 0 <= float(slope) <= kernel.kappa * (1 + 1e-12)


@pytest.mark.parametrize("name", POSITIVE)
def test_single_precision_follows_double(name: str) -> None:
    log_value = get_kernel(name).log_value
    assert log_value is not None
    scores = torch.linspace(-90, 90, 4001, dtype=torch.float64)
    single = scores.float().requires_grad_()
    value = log_value(single)
    value.sum().backward()
    wide = single.detach().double().requires_grad_()
    expected = log_value(wide)
    expected.sum().backward()
    assert single.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(single.grad.double(), wide.grad, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("score", [0.0, 1e4, -1e4, 1e30, -1e30])
def test_extreme_scores_are_finite_with_finite_derivatives(name: str, dtype: torch.dtype, score: float) -> None:
    log_value = get_kernel(name).log_value
    assert log_value is not None
    point = torch.tensor([score], dtype=dtype, requires_grad=True)
    (first,) = torch.autograd.grad(log_value(point).sum(), point, create_graph=True)
    assert log_value(point).isfinite().all()
    assert first.isfinite().all()
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), point)
        assert second.isfinite().all()


def test_the_derivative_at_zero_is_one_and_not_two() -> None:
    """A sum of two clamped branches would count both at zero, and break kappa = 1."""
    point = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_elu_plus_one(point).sum(), point)
    assert slope.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["elu+1", "softplus", "exp"])
def test_value_and_logarithm_agree(name: str) -> None:
    kernel = get_kernel(name)
    assert kernel.log_value is not None
    scores = torch.linspace(-30, 30, 301, dtype=torch.float64)
    torch.testing.assert_close(kernel.log_value(scores).exp(), kernel.value(scores), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("relu", [0.0, 0.0, 2.0]), ("elu", [math.expm1(-1.0), 0.0, 2.0]), ("identity", [-1.0, 0.0, 2.0])],
)
def test_kernels_without_logarithm(name: str, expected: list[float]) -> None:
    kernel = get_kernel(name)
    assert kernel.log_value is None
    assert kernel.kappa is None
    scores: Tensor = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(kernel.value(scores), torch.tensor(expected, dtype=torch.float64))


def test_softplus_has_no_step_where_its_expansion_takes_over() -> None:
    for cut, dtype in ((-40.0, torch.float64), (-20.0, torch.float32)):
        around = torch.tensor([cut - 1e-3, cut, cut + 1e-3], dtype=dtype)
        torch.testing.assert_close(log_softplus(around), around, rtol=1e-6, atol=1e-5)


def test_an_unknown_kernel_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"response kernel 'sofplus'. Did you mean 'softplus'\? Known: exp, elu\+1"):
        get_kernel("sofplus")
    assert KERNELS == ("exp", "elu+1", "softplus", "relu", "elu", "identity")
