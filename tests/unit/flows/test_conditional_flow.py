"""Flows given a context or labels: distributions of a batch, learned priors of classes, on disk too."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from invattn import Solution
from invattn.bijections import ClassAffine, Composed, initialize
from invattn.flows import ClassConditionalNormal, Flow, MultiscaleIResNet, ResidualFlow, StandardNormal, token_flow
from invattn.hub import ImageFlowConfig, VectorFlowConfig, load_flow, save_model
from invattn.testing import check_bijection


def drawn(module: torch.nn.Module, seed: int = 0, spread: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def conditional(**options: int) -> ResidualFlow:
    flow = ResidualFlow(2, blocks=2, hidden_channels=(8,), **options).double()  # type: ignore[arg-type]
    drawn(flow)
    return flow


def test_a_flow_at_contexts_is_one_distribution_a_context() -> None:
    flow, c = conditional(context_channels=3), torch.randn(4, 3, dtype=torch.float64)
    at = flow.given(c)
    assert (at.batch_shape, at.event_shape) == ((4,), (2,))
    torch.manual_seed(1)
    x = at.sample((5,))
    assert x.shape == (5, 4, 2)
    assert not x.requires_grad
    log_prob = at.log_prob(x)
    assert log_prob.shape == (5, 4)
    for i in range(4):
        alone = flow.given(c[i : i + 1])
        torch.testing.assert_close(alone.log_prob(x[:, i : i + 1]), log_prob[:, i : i + 1], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(at.log_prob(x[2]), log_prob[2], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(flow(x[2], c), log_prob[2], rtol=1e-11, atol=1e-11)
    torch.manual_seed(1)
    z = flow.base.sample(torch.Size((20,)))
    back = flow.bijection.given(c.repeat(5, 1))(x.flatten(0, 1))
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)


def test_every_conditional_density_integrates_to_one_and_depends_on_its_context() -> None:
    flow, c = conditional(context_channels=2), torch.tensor([[3.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)
    side = torch.linspace(-12, 12, 97, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)[:, None].expand(-1, 2, -1)
    with torch.no_grad():
        density = flow.given(c).log_prob(grid).exp()
    total = density.sum(dim=0) * float(side[1] - side[0]) ** 2
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=2e-3)
    assert float((density[:, 0] - density[:, 1]).abs().max()) > 1e-2


def test_a_reparametrised_sample_carries_the_gradient_to_the_context() -> None:
    flow, c = conditional(context_channels=3), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def total(context: Tensor) -> Tensor:
        torch.manual_seed(3)
        return flow.given(context).rsample((2,)).square().sum()

    assert torch.autograd.gradcheck(total, (c,))


def test_the_prior_of_classes_is_a_gaussian_each_and_unlabelled_their_mixture() -> None:
    prior = ClassConditionalNormal((3,), classes=4).double()
    drawn(prior, spread=1.0)
    affine = prior.bijection
    assert isinstance(affine, ClassAffine)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    normal = torch.distributions.Normal(affine.mean, affine.log_scale.exp())
    own = normal.log_prob(x[:, None]).sum(dim=-1)
    torch.testing.assert_close(prior.given(labels=y).log_prob(x), own[torch.arange(6), y], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(prior.log_prob(x), own.logsumexp(dim=1) - math.log(4), rtol=1e-11, atol=1e-11)
    assert prior.sample((7, 2)).shape == (7, 2, 3)
    many = prior.given(labels=torch.tensor([1, 3])).sample((20000,))
    error = 5 * affine.log_scale.exp()[[1, 3]] / math.sqrt(20000)
    assert bool(((many.mean(dim=0) - affine.mean[[1, 3]]).abs() <= error).all())
    unlabelled = prior.sample((20000,))
    assert bool(((unlabelled.mean(dim=0) - affine.mean.mean(dim=0)).abs() <= 5 * unlabelled.std(dim=0) / 141).all())


def test_it_is_a_bijection_at_its_labels() -> None:
    affine = ClassAffine((2,), 3).double()
    drawn(affine)
    x = torch.randn(4, 2, dtype=torch.float64)
    at = affine.given(labels=torch.full((1,), 1))
    for row in x:  # the laws evaluate samples alone
        check_bijection(Repeated(at), torch.stack([row, row]), log_det_tolerance=1e-9)
    constants = affine.bi_lipschitz((2,))
    scales = (-affine.log_scale.detach()).exp()
    assert constants.lower == pytest.approx(float(scales.min()))
    assert constants.upper == pytest.approx(float(scales.max()))


class Repeated(Composed):
    """A map given one row of labels, for batches of any size."""

    def __init__(self, inner: ClassAffine) -> None:
        super().__init__([inner])

    def at(self, batch: int) -> ClassAffine:
        inner = self.bijections[0]
        assert isinstance(inner, ClassAffine)
        assert inner.labels.bound is not None
        return inner.given(labels=inner.labels.bound.expand(batch))

    def forward(self, x: Tensor) -> Tensor:
        return self.at(len(x))(x)

    def inverse(self, z: Tensor) -> Tensor:
        return self.at(len(z)).inverse(z)

    def solve(self, z: Tensor) -> Solution:
        return self.at(len(z)).solve(z)

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.at(len(x)).forward_and_log_det(x)

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.at(len(z)).inverse_and_log_det(z)


def test_a_prior_of_classes_learns_which_class_is_where() -> None:
    """Two far clusters, one a class: given the label the density is that of one cluster."""
    torch.manual_seed(0)
    y = torch.arange(200) % 2
    x = torch.stack([6.0 * y - 3, torch.zeros(200)], dim=1) + 0.5 * torch.randn(200, 2)
    flow = ResidualFlow(2, blocks=1, hidden_channels=(8,), classes=2)
    initialize(flow.given(labels=y), x)
    optimiser = torch.optim.Adam(flow.parameters(), lr=3e-2)
    for _ in range(80):
        optimiser.zero_grad()
        loss = -flow(x, labels=y).mean()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        right, wrong = (flow.given(labels=labels).log_prob(x) for labels in (y, 1 - y))
        assert float((right > wrong).float().mean()) > 0.95
        # The entropy of one cluster is 1.45 nats; without a label ln 2 more.
        assert float(-right.mean()) == pytest.approx(1.45, abs=0.15)
        assert float(-flow.log_prob(x).mean()) == pytest.approx(1.45 + math.log(2), abs=0.15)
    drawn_points = flow.given(labels=torch.tensor([0, 1])).sample((50,))[..., 0]
    assert bool((drawn_points[:, 0] < 0).all())
    assert bool((drawn_points[:, 1] > 0).all())


def test_an_image_flow_of_classes_at_contexts_is_stored_with_its_prior(tmp_path: Path) -> None:
    config = ImageFlowConfig(
        image_shape=(1, 4, 4), blocks=(1, 1), hidden_channels=4, attention="gaussian", classes=3, context_channels=2
    )
    model = config.build()
    drawn(model, spread=0.1)
    save_model(model, tmp_path, config=config)
    loaded = load_flow(tmp_path)
    flow, again = (config.distribution(chain) for chain in (model, loaded.model))  # type: ignore[arg-type]
    x, c, y = torch.rand(5, 1, 4, 4), torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1])
    torch.manual_seed(2)
    found = flow.given(c, labels=y).log_prob(x)
    torch.manual_seed(2)
    assert torch.equal(again.given(c, labels=y).log_prob(x), found)
    assert again.given(c, labels=y).sample((2,)).shape == (2, 5, 1, 4, 4)
    assert flow.given(c).log_prob(x).shape == (5,)
    assert flow.given(c).sample((2,)).shape == (2, 5, 1, 4, 4)
    vectors = VectorFlowConfig(dimensions=2, blocks=1, classes=2)
    assert vectors.distribution(vectors.build()).given(labels=torch.tensor([1])).sample().shape == (1, 2)


@pytest.mark.parametrize("attention", ["concatenation", "uniform", "pointwise"])
def test_a_token_flow_takes_a_context(attention: str) -> None:
    made = token_flow(2, attention=attention, blocks=1, hidden_channels=(4,), context_channels=3).double()
    drawn(made)
    flow = Flow(made, StandardNormal((5, 2)).double())
    c = torch.randn(3, 3, dtype=torch.float64)
    x = flow.given(c).sample()
    torch.testing.assert_close(made.given(c).inverse(made.given(c)(x).detach()), x, rtol=0, atol=1e-9)


def test_what_does_not_fit_is_one_clear_error() -> None:
    flow = conditional(classes=3)
    with pytest.raises(ValueError, match="no part of this flow takes"):
        flow.given(torch.randn(4, 2))
    with pytest.raises(ValueError, match="labels must lie between 0 and 2; got 0 to 3"):
        flow.given(labels=torch.tensor([0, 3]))
    for wrong in (torch.tensor([0.0]), torch.tensor([[0]]), torch.tensor([True])):
        with pytest.raises(ValueError, match="labels must be integers"):
            flow.given(labels=wrong)
    at = flow.given(labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="a condition of 2 samples was given for a batch of 3"):
        at.log_prob(torch.zeros(3, 2, dtype=torch.float64))
    both = conditional(classes=2, context_channels=1)
    with pytest.raises(ValueError, match="of the same samples"):
        both.given(torch.zeros(2, 1, dtype=torch.float64), labels=torch.tensor([0]))
    with pytest.raises(ValueError, match="classes and context_channels"):
        ResidualFlow(2, classes=-1)
    with pytest.raises(ValueError, match="classes and context_channels"):
        MultiscaleIResNet((1, 4, 4), blocks=(1,), context_channels=-1)
