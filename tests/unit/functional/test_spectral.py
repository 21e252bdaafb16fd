"""Spectral norms: never below the truth, near it, differentiable."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.functional import power_iteration, spectral_norm
from invattn.functional.spectral import gram_norm


def matrix(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def truth(weights: Tensor) -> Tensor:
    largest: Tensor = torch.linalg.svdvals(weights.double()).amax(dim=-1)
    return largest


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 64), (64, 200), (65, 65), (70, 100), (130, 66)])
def test_never_below_the_truth_and_within_one_percent(shape: tuple[int, int]) -> None:
    for seed in range(3):
        weights = matrix(*shape, seed=seed)
        bound = float(spectral_norm(weights))
        assert bound >= float(truth(weights)) * (1 - 1e-13)
        assert bound <= float(truth(weights)) * 1.01


def test_the_worst_case_of_the_gram_path_is_within_its_stated_ratio() -> None:
    """All singular values equal: the ratio is m^(2^-(t+2)) exactly."""
    for size in (65, 100):
        orthogonal = torch.linalg.qr(matrix(size, size))[0]
        assert float(spectral_norm(orthogonal)) == pytest.approx(size ** (2.0**-11), rel=1e-9)
        for steps in (0, 1, 4):
            assert float(gram_norm(orthogonal, steps=steps)) == pytest.approx(size ** (2.0 ** -(steps + 2)), rel=1e-9)


@pytest.mark.parametrize("steps", [0, 1, 3, 9])
def test_the_gram_bound_falls_with_its_steps(steps: int) -> None:
    weights = matrix(20, 30)
    fewer, more = float(gram_norm(weights, steps=steps)), float(gram_norm(weights, steps=steps + 1))
    assert fewer * (1 + 1e-13) >= more >= float(truth(weights)) * (1 - 1e-13)


@pytest.mark.parametrize("size", [5, 70])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_any_scale_of_single_precision_weights(size: int, scale: float) -> None:
    weights = (matrix(size, size, dtype=torch.float32) * scale).requires_grad_()
    bound = spectral_norm(weights)
    assert bound.dtype == torch.float64
    assert float(bound.detach()) >= float(truth(weights.detach())) * (1 - 1e-12)
    assert float(bound.detach()) <= float(truth(weights.detach())) * 1.01 + 1e-100
    (grad,) = torch.autograd.grad(bound, weights)
    assert grad.isfinite().all()


@pytest.mark.parametrize("size", [4, 66])
def test_stacks_of_matrices(size: int) -> None:
    stack = torch.stack([matrix(size, size + 1, seed=seed) for seed in range(6)]).view(2, 3, size, size + 1)
    found = spectral_norm(stack)
    assert found.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert float(found[i, j]) == pytest.approx(float(spectral_norm(stack[i, j])), rel=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)])
def test_derivatives(shape: tuple[int, int]) -> None:
    weights = matrix(*shape).requires_grad_()
    assert torch.autograd.gradcheck(spectral_norm, (weights,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda w: gram_norm(w, steps=9), (weights,), fast_mode=True)


def test_the_gradient_of_the_gram_path_is_near_the_leading_outer_product() -> None:
    weights = matrix(80, 70).requires_grad_()
    (grad,) = torch.autograd.grad(spectral_norm(weights), weights)
    left, _, right = torch.linalg.svd(weights.detach())
    expected = torch.outer(left[:, 0], right[0])
    assert float((grad - expected).norm()) < 0.05


def test_power_iteration_is_an_estimate_from_below_that_converges() -> None:
    weights = matrix(12, 9)
    left, right = (vector / vector.norm() for vector in (torch.ones(12).double(), torch.ones(9).double()))
    previous = 0.0
    for steps in (1, 5, 20, 300):
        u, v = power_iteration(weights, left, right, steps=steps)
        estimate = float(u @ weights @ v)
        assert float(u.norm()) == pytest.approx(1)
        assert float(v.norm()) == pytest.approx(1)
        assert previous <= estimate + 1e-12
        assert estimate <= float(truth(weights)) * (1 + 1e-12)
        previous = estimate
    assert previous == pytest.approx(float(truth(weights)), rel=1e-9)
    assert all(
        torch.equal(a, b) for a, b in zip(power_iteration(weights, left, right, steps=0), (left, right), strict=True)
    )


def test_power_iteration_on_a_matrix_of_zeros_stays_finite() -> None:
    u, v = power_iteration(torch.zeros(2, 3), torch.ones(2), torch.ones(3), steps=3)
    assert u.isfinite().all()
    assert v.isfinite().all()
