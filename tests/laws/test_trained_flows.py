"""Flows that were trained: their samples are finite, score what they were drawn with, and return from a round trip."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from invattn.bijections import ResidualBijection, initialize
from invattn.flows import Flow, MultiscaleIResNet, StandardNormal, token_flow
from invattn.logdet import Exact, PowerSeries
from invattn.recipes import ATTENTION_KINDS

from .registry import seeded


@dataclass(frozen=True)
class Size:
    """How large a flow is and how long it is trained."""

    points: int
    blocks: int
    side: int
    hidden: int
    steps: int


SMALL = Size(points=8, blocks=2, side=4, hidden=8, steps=30)
LARGE = Size(points=16, blocks=4, side=8, hidden=24, steps=120)


def point_sets(count: int, points: int, generator: torch.Generator) -> Tensor:
    """Sets of points of three narrow clusters each: what a flow has to contract to describe."""
    centres = 2 * torch.randn(count, 3, 2, generator=generator)
    owner = torch.randint(0, 3, (count, points), generator=generator)
    return centres.gather(1, owner[..., None].expand(-1, -1, 2)) + 0.15 * torch.randn(
        count, points, 2, generator=generator
    )


def pictures(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Images of three channels with smooth shading and a little noise, in [-0.5, 0.5)."""
    position = torch.linspace(-1, 1, side)
    slope = torch.randn(count, 3, 2, generator=generator)
    shade = slope[..., :1, None] * position[:, None] + slope[..., 1:, None] * position[None, :]
    noise = 0.03 * torch.randn(count, 3, side, side, generator=generator)
    return 0.2 * torch.sin(2 * shade) + noise


def new_token_flow(size: Size) -> Flow:
    chain = token_flow(2, blocks=size.blocks, attention_layers=size.blocks - 1, log_det_estimator=PowerSeries(terms=8))
    return Flow(chain, StandardNormal((size.points, 2)))


def new_image_flow(size: Size, kind: str = "dot_product") -> Flow:
    return MultiscaleIResNet(
        (3, size.side, size.side),
        blocks=(size.blocks // 2, size.blocks // 2),
        hidden_channels=size.hidden,
        attention=kind,
        attention_positions="interleaved:1",
        whitening=2,
        prior_channels=8,
        self_logit=2.0,
        log_det_estimator=PowerSeries(terms=6),
    )


def score(flow: Flow, x: Tensor) -> float:
    """-log p in nats per dimension."""
    with torch.no_grad():
        return -float(flow.log_prob(x).mean()) / x[0].numel()


def train(flow: Flow, data: Callable[[torch.Generator], Tensor], steps: int) -> list[float]:
    """Return the loss, in nats per dimension, of every step of Adam on fresh data."""
    generator, losses = seeded(21), []
    first = data(generator)
    initialize(flow.bijection, first)
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = -flow(data(generator)).mean() / first[0].numel()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@cache
def trained(family: str, size: Size) -> Flow:
    torch.manual_seed(20)
    flow = new_token_flow(size) if family == "tokens" else new_image_flow(size)

    def data(generator: torch.Generator, count: int = 48) -> Tensor:
        return (
            point_sets(count, size.points, generator) if family == "tokens" else pictures(count, size.side, generator)
        )

    test = data(seeded(26), 200)
    train(flow, data, 1)  # starts the layers that start from data
    before = score(flow, test)
    train(flow, data, size.steps)
    assert score(flow, test) < before - 0.03, "the flow has learned nothing"
    return flow.eval()


def residual_blocks(flow: Flow) -> Iterator[ResidualBijection]:
    return (part for part in flow.modules() if isinstance(part, ResidualBijection))


def with_same_probes(flow: Flow) -> Flow:
    """The flow with a generator of its own in each block, at its start: the same probes in every order of blocks."""
    other = copy.deepcopy(flow)
    for number, block in enumerate(residual_blocks(other)):
        if not block.log_det_estimator.needs_separate_tokens:
            block.log_det_estimator = PowerSeries(terms=8, generator=seeded(30 + number))
    return other


def with_exact(flow: Flow) -> Flow:
    other = copy.deepcopy(flow)
    for block in residual_blocks(other):
        block.log_det_estimator = Exact()
    return other


def check_samples(flow: Flow, prepare: Callable[[Flow], Flow], count: int) -> None:
    """Check samples and what they were drawn with against ``log_prob``; it sees the same probes, if any."""
    dimensions = flow.event_shape.numel()
    torch.manual_seed(22)
    with torch.no_grad():
        z = flow.base.sample(torch.Size((count,)))
        x, log_det = prepare(flow).bijection.inverse_and_log_det(z)
        drawn = flow.base.log_prob(z) - log_det
        scored = prepare(flow).log_prob(x)
    assert bool(x.isfinite().all())
    assert bool(drawn.isfinite().all())
    assert float((scored - drawn).abs().max()) / dimensions <= 1e-4
    assert float(log_det.abs().mean()) > 0.1
    torch.manual_seed(22)
    torch.testing.assert_close(flow.sample((count,)), x, rtol=0, atol=1e-5)


def round_trip(flow: Flow, x: Tensor) -> float:
    with torch.no_grad():
        return float((flow.bijection.inverse(flow.bijection(x)) - x).abs().max())


def check_round_trips(flow: Flow, count: int) -> None:
    torch.manual_seed(23)
    x = flow.sample((count,))
    assert round_trip(flow, x) <= 1e-4
    double = copy.deepcopy(flow).double()
    assert round_trip(double, double.sample((count,))) <= 1e-9


@pytest.mark.parametrize("family", ["tokens", "images"])
def test_samples_of_a_trained_flow_score_what_they_were_drawn_with(family: str) -> None:
    flow = trained(family, SMALL)
    check_samples(flow, with_exact, 50)
    check_samples(flow, with_same_probes, 50)


@pytest.mark.parametrize("family", ["tokens", "images"])
def test_a_trained_flow_returns_its_samples(family: str) -> None:
    check_round_trips(trained(family, SMALL), 50)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tokens", "images"])
def test_1000_samples_of_a_larger_trained_flow(family: str) -> None:
    flow = trained(family, LARGE)
    check_samples(flow, with_same_probes, 1000)
    check_round_trips(flow, 1000)


@pytest.mark.slow
def test_data_return_too_from_a_trained_token_flow() -> None:
    """Data lie where the flow contracts most; the tolerance of a single block alone would leave errors of 6e-3."""
    flow = trained("tokens", LARGE)
    x = point_sets(1000, LARGE.points, seeded(24))
    assert round_trip(flow, x) <= 1e-4
    assert round_trip(copy.deepcopy(flow).double(), x.double()) <= 1e-9


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_every_kind_trains_as_attention_in_an_image_flow_without_nan(kind: str) -> None:
    """The Gaussian kinds could not, as the paper has them: their exponentials overflow."""
    torch.manual_seed(25)
    flow = new_image_flow(SMALL, kind)
    # Images ten times as bright and dark as data are: logits that are not bounded would be a hundred times as large.
    losses = train(flow, lambda generator: 10 * pictures(16, SMALL.side, generator), 20)
    assert all(loss == loss and abs(loss) < 20 for loss in losses)
    assert losses[-1] < losses[0]
    assert all(bool(parameter.isfinite().all()) for parameter in flow.parameters())
    assert bool(flow.sample((20,)).isfinite().all())
