"""Likelihoods of test samples against dense Jacobians; radii against eigenvalues; refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn.bijections import Composed, ResidualBijection, initialize
from invattn.experiments.density.likelihood import (
    block_radii,
    count_outliers,
    inverse_errors,
    measure_likelihood,
    refusal,
    with_estimator,
)
from invattn.flows import Flow, StandardNormal, token_flow
from invattn.logdet import Exact, TokenwiseExact
from invattn.recipes import Released
from invattn.testing import dense_jacobian


def tokens(batch: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(batch, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(released: bool = False) -> Flow:
    recipe = Released() if released else None
    made = token_flow(2, blocks=2, attention_layers=1, hidden_channels=(8,), lipschitz=0.9, recipe=recipe).double()
    initialize(made, tokens(64, 1))
    return Flow(made, StandardNormal((4, 2)).double()).eval()


def dense_nats(flow: Flow, x: Tensor) -> Tensor:
    values = []
    for sample in x:
        jacobian = torch.autograd.functional.jacobian(lambda t: flow.bijection(t[None])[0], sample).reshape(8, 8)
        z = flow.bijection(sample[None]).detach()
        values.append(0.5 * z.square().sum() + 4 * math.log(2 * math.pi) - torch.linalg.slogdet(jacobian).logabsdet)
    return torch.stack(values) / 8


def test_exact_likelihoods_are_those_of_the_dense_jacobian() -> None:
    flow, x = make(), tokens(7)
    done: list[int] = []
    report = measure_likelihood(flow, x, batch_size=3, on_batch=done.append)
    expected = dense_nats(flow, x)
    torch.testing.assert_close(report.nats, expected, rtol=1e-9, atol=1e-9)
    assert report.mean == pytest.approx(float(expected.mean()))
    assert report.median == pytest.approx(float(expected.median()))
    assert report.standard_error == pytest.approx(float(expected.std()) / math.sqrt(7))
    assert report.exact
    assert report.estimator_error == 0
    assert done == [3, 3, 1]


def test_the_unbiased_estimator_agrees_and_adds_probes_until_its_error_is_small() -> None:
    flow, x = make(), tokens(20)
    generator = torch.Generator().manual_seed(0)
    rough = measure_likelihood(flow, x, exact=False, target_error=1.0, generator=generator)
    fine = measure_likelihood(flow, x, exact=False, target_error=0.5 * rough.estimator_error, generator=generator)
    exact = measure_likelihood(flow, x)
    assert 0 < fine.estimator_error <= 0.5 * rough.estimator_error
    for report in (rough, fine):
        assert not report.exact
        assert abs(report.mean - exact.mean) < 5 * report.estimator_error


def test_another_estimator_leaves_the_flow_and_tokenwise_blocks_alone() -> None:
    flow = make()
    other = with_estimator(flow, Exact())
    kinds = {type(b.log_det_estimator) for b in other.modules() if isinstance(b, ResidualBijection)}
    assert kinds == {Exact, TokenwiseExact}
    assert not any(isinstance(b, ResidualBijection) and b.log_det_estimator == Exact() for b in flow.modules())


def test_radii_are_those_of_each_block_at_its_own_input() -> None:
    flow, x = make(), tokens(3)
    radii = block_radii(flow.bijection, x, generator=torch.Generator().manual_seed(1))
    assert isinstance(flow.bijection, Composed)
    point = x
    for number, part in enumerate(flow.bijection.bijections):
        if isinstance(part, ResidualBijection):
            eigenvalues = torch.linalg.eigvals(dense_jacobian(part.g, point))
            found = radii[f"bijections.{number}"]
            torch.testing.assert_close(found, eigenvalues.abs().amax(dim=-1), rtol=1e-6, atol=1e-8)
            assert bool((found <= part.lipschitz_bound().value).all())
        point = part(point).detach()
    assert len(radii) == 4


def test_inverse_errors_are_small_for_a_certified_flow() -> None:
    flow, x = make(), tokens(5)
    errors = inverse_errors(flow.bijection, x)
    assert errors.shape == (5,)
    assert float(errors.max()) < 1e-9


def test_only_an_uncertified_block_with_a_radius_of_one_is_refused() -> None:
    proven, unproven = make(), make(released=True)
    high = {"bijections.1": torch.tensor([0.3, 1.2, 1.0])}
    assert refusal(proven, high) is None
    reason = refusal(unproven, high)
    assert reason is not None
    assert "bijections.1" in reason
    assert "1.2 on 2 of 3" in reason
    assert refusal(unproven, {"bijections.1": torch.tensor([0.3, 0.99])}) is None
    assert refusal(unproven, {"bijections.3": torch.tensor([1.5])}) is None  # the MLP has its certificate


def test_outliers_are_far_or_not_finite() -> None:
    values = torch.arange(100, dtype=torch.float64) / 100
    assert count_outliers(values) == 0
    assert count_outliers(torch.cat([values, torch.tensor([50.0, -50.0, math.nan, math.inf])])) == 4
    assert count_outliers(torch.full((3,), math.nan)) == 3
