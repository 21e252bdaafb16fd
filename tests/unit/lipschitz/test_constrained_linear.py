"""The paper's constrained map: Eq. 4, its vectors, its modes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from invattn.lipschitz import ConstrainedLinear
from invattn.lipschitz.constrained import at_scaled_weights, held_estimates


def truth(weight: Tensor) -> float:
    return float(torch.linalg.svd(weight.detach().double())[1][0])


def make(
    scale: float = 3.0, *, seed: int = 0, enforce: str = "forward", dtype: torch.dtype = torch.float64
) -> ConstrainedLinear:
    torch.manual_seed(seed)
    linear = ConstrainedLinear(6, 5, coefficient=0.9, enforce=enforce).to(dtype)
    with torch.no_grad():
        linear.weight.mul_(scale)
    return linear


def settle(linear: ConstrainedLinear, forwards: int = 100) -> None:
    linear.train()
    for _ in range(forwards):
        linear.scaled_weight()


def test_equation_4_against_the_decomposition() -> None:
    for scale in (0.1, 1.0, 20.0):
        linear = make(scale)
        settle(linear)
        sigma = truth(linear.weight)
        expected = linear.weight / max(1.0, sigma / 0.9)
        torch.testing.assert_close(linear.scaled_weight(), expected, rtol=1e-9, atol=1e-12)
        x = torch.randn(2, 3, 6, dtype=torch.float64)
        torch.testing.assert_close(linear(x), x @ expected.mT + linear.bias, rtol=1e-9, atol=1e-12)


def test_small_weights_are_left_alone() -> None:
    linear = make(0.01)
    assert torch.equal(linear.scaled_weight(), linear.weight)


def test_it_is_right_at_its_first_use_in_evaluation() -> None:
    """Before any training forward: the vectors are refined at construction."""
    for seed in range(5):
        linear = make(20.0, seed=seed).eval()
        assert truth(linear.scaled_weight()) == pytest.approx(0.9, rel=0.01)


def test_the_scale_follows_the_weight_at_once_in_both_modes() -> None:
    """Only the vectors are stored: a norm stored instead would be stale after an optimiser step."""
    for mode in (True, False):
        linear = make(20.0).train(mode)
        before = linear.scaled_weight().detach()
        with torch.no_grad():
            linear.weight.mul_(50)
        torch.testing.assert_close(linear.scaled_weight().detach(), before, rtol=1e-3, atol=1e-6)


def test_the_estimate_is_from_below_and_near_after_training_steps() -> None:
    linear = make(5.0)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.3)
    x = torch.randn(64, 6, dtype=torch.float64)
    for _ in range(30):
        optimizer.zero_grad()
        (linear(x) - x[:, :5]).square().mean().backward()
        optimizer.step()
        # Five steps of power iteration may leave 15 %.
        assert truth(linear.scaled_weight()) <= 0.9 * 1.15


def test_vectors_change_only_in_a_training_forward_that_records_gradients() -> None:
    linear = make()
    with torch.no_grad():
        linear.weight.normal_()
    vectors = linear.left.clone(), linear.right.clone()

    def unchanged() -> bool:
        return torch.equal(linear.left, vectors[0]) and torch.equal(linear.right, vectors[1])

    x = torch.randn(2, 6, dtype=torch.float64)
    linear.eval()(x)
    assert unchanged()
    with torch.no_grad():
        linear.train()(x)
    assert unchanged()
    torch.func.vjp(linear, x)
    assert unchanged()
    with held_estimates(nn.Sequential(linear)):
        linear(x)
        with held_estimates(linear):
            linear(x)
        linear(x)
    assert unchanged()
    linear(x)
    assert not unchanged()


def test_held_estimates_are_released_after_an_error_and_other_callables_are_left_alone() -> None:
    linear = make()
    with pytest.raises(RuntimeError, match="stop"), held_estimates(linear):
        raise RuntimeError("stop")
    assert not linear.held
    with held_estimates(torch.sin):
        pass


def test_two_training_forwards_before_one_backward() -> None:
    """The vectors change in place between the two: the first forward's graph must have its own copies."""
    linear = make()
    x = torch.randn(4, 6, dtype=torch.float64)
    (linear(x) + linear(2 * x)).sum().backward()
    assert linear.weight.grad is not None
    assert linear.weight.grad.isfinite().all()


def test_the_gradient_goes_through_the_scale() -> None:
    """At settled vectors d sigma / dW = u v^T: the derivative of W / (sigma / c)."""
    linear = make().eval()
    settle(linear)
    linear.eval()

    def scaled(weight: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(linear, {"weight": weight}, (torch.eye(6, dtype=torch.float64),))
        return result

    assert torch.autograd.gradcheck(scaled, (linear.weight.detach().clone().requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("shape", [(6, 5), (80, 70)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_after_a_step(shape: tuple[int, int], dtype: torch.dtype) -> None:
    linear = ConstrainedLinear(*shape, coefficient=0.9, enforce="after_step").to(dtype)
    assert truth(linear.weight) <= 0.9 * (1 + 1e-6)
    with torch.no_grad():
        linear.weight.normal_()
        free = linear.weight.clone()
    assert torch.equal(linear.scaled_weight(), free)  # forward leaves it alone
    linear.project()
    assert truth(linear.weight) <= 0.9 * (1 + 1e-6)
    assert truth(linear.weight) >= 0.9 * 0.99
    kept = linear.weight.clone()
    torch.testing.assert_close(kept / kept.norm(), free / free.norm(), rtol=1e-5, atol=1e-6)
    linear.project()
    torch.testing.assert_close(linear.weight.detach(), kept, rtol=1e-2, atol=0)


def test_the_state_loads_into_a_fresh_instance() -> None:
    linear, fresh = make(seed=1), make(seed=2)
    settle(linear, 3)
    fresh.load_state_dict(linear.state_dict())
    assert torch.equal(fresh.eval().scaled_weight(), linear.eval().scaled_weight())


@pytest.mark.parametrize("coefficient", [0.0, -1.0, float("nan")])
def test_a_coefficient_that_is_not_positive_is_refused(coefficient: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ConstrainedLinear(2, 2, coefficient=coefficient)


def test_an_unknown_time_of_enforcement_is_refused() -> None:
    with pytest.raises(ValueError, match="'forward' or 'after_step'; got 'later'"):
        ConstrainedLinear(2, 2, enforce="later")


def test_its_representation_names_what_was_chosen() -> None:
    assert "coefficient=0.9, enforce='forward'" in repr(make())


@pytest.mark.parametrize("enforce", ["forward", "after_step"])
def test_a_view_at_the_scaled_weights_leaves_the_module_as_it_was(enforce: str) -> None:
    linear = make(enforce=enforce)
    module, x = nn.Sequential(linear, nn.Tanh()).eval(), torch.ones(2, 6, dtype=torch.float64)
    names, image = list(module.state_dict()), module(x)
    view = at_scaled_weights(module)
    assert torch.equal(view(x), image)
    assert list(module.state_dict()) == names == list(view.state_dict())
    assert linear.fixed is None
