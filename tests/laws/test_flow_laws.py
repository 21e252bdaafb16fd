"""A flow is a probability distribution: it integrates to one and samples what it scores."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn import WithLogDet, invertible_attention
from invattn.bijections import Composed, Squeeze
from invattn.flows import Flow, StandardNormal
from invattn.logdet import Exact, PowerSeries

from .registry import CHANNELS, PLAIN_CERTIFIED, TOKENS, BlockCase, random_tokens, randomise


def flow_of(case: BlockCase, tokens: int = TOKENS, channels: int = CHANNELS, seed: int = 1) -> Flow:
    block = invertible_attention(channels, kind=case.kind, layout="tokens", log_det_estimator=Exact()).double()
    randomise(block, seed)
    return Flow(block, StandardNormal((tokens, channels)).double())


@pytest.mark.parametrize("case", PLAIN_CERTIFIED, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 2)], ids=str)
def test_the_density_integrates_to_one(case: BlockCase, shape: tuple[int, int]) -> None:
    flow = flow_of(case, *shape)
    side = torch.linspace(-9, 9, 401 if math.prod(shape) == 1 else 73, dtype=torch.float64)
    grid = torch.cartesian_prod(*[side] * math.prod(shape)).reshape(-1, *shape)
    with torch.no_grad():
        total = float(flow.log_prob(grid).exp().sum()) * float(side[1] - side[0]) ** math.prod(shape)
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("case", PLAIN_CERTIFIED, ids=str)
def test_log_prob_is_the_change_of_variables_and_forward_is_log_prob(case: BlockCase) -> None:
    flow, x = flow_of(case), random_tokens(3)
    jacobian = torch.autograd.functional.jacobian(lambda t: flow.bijection(t[None]).flatten(), x[0])
    z = flow.bijection(x).detach()
    expected = (-0.5 * z[0].square() - 0.5 * math.log(2 * math.pi)).sum()
    expected = expected + torch.linalg.slogdet(jacobian.reshape(TOKENS * CHANNELS, -1)).logabsdet
    log_prob = flow(x)
    assert log_prob.shape == (3,)
    torch.testing.assert_close(log_prob[0].detach(), expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(log_prob, flow.log_prob(x))
    log_prob.sum().backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3)], ids=str)
def test_samples_have_their_shape_and_map_back_to_the_base(shape: tuple[int, ...]) -> None:
    flow = flow_of(BlockCase("concatenation"))
    torch.manual_seed(3)
    x = flow.sample(shape)
    assert x.shape == (*shape, TOKENS, CHANNELS)
    assert not x.requires_grad
    torch.manual_seed(3)
    z = flow.base.sample(torch.Size(shape))
    back = flow.bijection(x.reshape(-1, TOKENS, CHANNELS)).detach().view_as(z)
    torch.testing.assert_close(back, z, rtol=1e-10, atol=1e-10)


def test_samples_follow_the_density() -> None:
    """The mean of log p over samples is minus the entropy, which quadrature gives as well."""
    flow = flow_of(BlockCase("gaussian"), 1, 1)
    side = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    torch.manual_seed(4)
    with torch.no_grad():
        log_prob = flow.log_prob(side[:, None, None])
        entropy = -float((log_prob.exp() * log_prob).sum()) * float(side[1] - side[0])
        drawn = -flow.log_prob(flow.sample((4000,)))
    assert abs(float(drawn.mean()) - entropy) <= 5 * float(drawn.std()) / math.sqrt(4000)


def test_a_reparametrised_sample_carries_the_gradient_of_the_inverse() -> None:
    flow = flow_of(BlockCase("embedded_gaussian"), 3)
    parameters = list(flow.parameters())
    torch.manual_seed(5)
    x = flow.rsample((2,))
    z = flow.bijection(x).detach()
    found = torch.autograd.grad(x.square().sum(), parameters)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(step * direction)
            values.append(float(flow.bijection.inverse(z).square().sum()))
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(step * direction)
    slope = (values[0] - values[1]) / 2e-6
    expected = sum(float((grad * direction).sum()) for grad, direction in zip(found, directions, strict=True))
    assert slope == pytest.approx(expected, rel=1e-4)


def test_a_bijection_that_changes_the_shape() -> None:
    """Data (1, 4, 4), base (4, 2, 2): samples come back as images, not as squeezed values in another shape."""
    block = BlockCase("gaussian").block(grid=(2, 2), log_det_estimator=Exact())
    flow = Flow(Composed([Squeeze(2), block]), StandardNormal((4, 2, 2)).double())
    torch.manual_seed(6)
    x = flow.sample((3,))
    assert x.shape == (3, 1, 4, 4)
    torch.manual_seed(6)
    z = flow.base.sample(torch.Size((3,)))
    torch.testing.assert_close(flow.bijection(x).detach(), z, rtol=1e-10, atol=1e-10)
    assert flow.log_prob(x).shape == (3,)
    assert flow.sample().shape == (1, 4, 4)


def test_any_distribution_over_whole_samples_is_a_base() -> None:
    one = torch.ones(TOKENS, CHANNELS, dtype=torch.float64)
    normal = torch.distributions.Normal(0 * one, one)
    flow = flow_of(BlockCase("dot_product"))
    other = Flow(flow.bijection, torch.distributions.Independent(normal, 2))
    x = random_tokens(2)
    torch.testing.assert_close(other.log_prob(x), flow.log_prob(x), rtol=1e-12, atol=1e-12)
    assert other.event_shape == (TOKENS, CHANNELS)
    with pytest.raises(ValueError, match=r"batch shape \(3, 4\).*Independent"):
        Flow(flow.bijection, normal)


def test_a_flow_is_a_module_and_a_distribution() -> None:
    flow = flow_of(BlockCase("gaussian"))
    assert isinstance(flow, torch.nn.Module)
    assert isinstance(flow, torch.distributions.Distribution)
    assert flow.has_rsample
    assert bool(flow.support.check(random_tokens(2)).all())
    assert flow.batch_shape == ()
    single = flow.float()
    assert single.sample((2,)).dtype == torch.float32
    assert set(flow.state_dict()) == {f"bijection.{name}" for name in flow.bijection.state_dict()}


def test_the_standard_normal() -> None:
    base = StandardNormal((3, 2)).double()
    value = torch.randn(4, 3, 2, dtype=torch.float64)
    expected = torch.distributions.Normal(0, 1).log_prob(value).sum(dim=(1, 2))
    torch.testing.assert_close(base.log_prob(value), expected)
    assert base.sample((5, 2)).shape == (5, 2, 3, 2)
    assert base.sample().dtype == torch.float64


def test_maximum_likelihood_trains_with_a_sampled_estimator() -> None:
    torch.manual_seed(7)
    block = BlockCase("embedded_gaussian").block(dtype=torch.float32, log_det_estimator=PowerSeries(terms=5))
    flow = Flow(block.train(), StandardNormal((TOKENS, CHANNELS)))
    data: Tensor = 0.5 * torch.randn(32, TOKENS, CHANNELS) + 1
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.05)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = -flow(data).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 5
    assert flow.bijection.lipschitz_bound().value <= 0.9


def test_with_log_det_returns_both_from_forward() -> None:
    block, x = BlockCase("gaussian").block(log_det_estimator=Exact()), random_tokens(2)
    for one, other in zip(WithLogDet(block)(x), block.forward_and_log_det(x), strict=True):
        assert torch.equal(one, other)
