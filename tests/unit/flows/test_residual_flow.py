"""The flow over vectors: its parts, its density, and what it learns in a few steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from invattn import DataError
from invattn.bijections import ActNorm, Linear1x1, ResidualBijection, Whitening, initialize
from invattn.flows import ResidualFlow
from invattn.hub import VectorFlowConfig, load_flow, save_model
from invattn.logdet import PowerSeries, TokenwiseExact
from invattn.solvers import Picard


def ring(count: int, seed: int = 0) -> Tensor:
    """Points about 3 from the origin: nothing that an affine map of a normal can be."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    radius = 3 + 0.2 * torch.randn(count, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def small(**options: object) -> ResidualFlow:
    return ResidualFlow(2, **{"blocks": 4, "hidden_channels": (16, 16), **options})  # type: ignore[arg-type]


def test_blocks_are_norm_mixing_and_mlp_and_a_last_norm() -> None:
    parts = [type(part) for part in small(blocks=2, whitening=True, channel_mixing=True).bijection.parts()]
    assert parts == [Whitening, *[ActNorm, Linear1x1, ResidualBijection] * 2, ActNorm]
    assert [type(part) for part in small(blocks=1).bijection.parts()] == [ActNorm, ResidualBijection, ActNorm]


def test_the_log_determinant_is_exact_for_few_dimensions_unless_another_is_given() -> None:
    def estimator(flow: ResidualFlow) -> object:
        return next(part.log_det_estimator for part in flow.modules() if isinstance(part, ResidualBijection))

    assert isinstance(estimator(small()), TokenwiseExact)
    assert isinstance(estimator(ResidualFlow(17, blocks=1)), PowerSeries)
    assert estimator(small(log_det_estimator=PowerSeries(terms=7))) == PowerSeries(terms=7)


def test_it_learns_a_ring_integrates_to_one_and_samples_it() -> None:
    torch.manual_seed(0)
    flow, x = small(), ring(1024)
    initialize(flow.bijection, x)
    with torch.no_grad():
        before = float(flow.log_prob(x).mean())
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = -flow(x[torch.randint(len(x), (200,))]).mean()
        loss.backward()
        optimiser.step()
    test = ring(1024, seed=1)
    with torch.no_grad():
        after = float(flow.log_prob(test).mean())
        side = torch.linspace(-6, 6, 101)
        total = float(flow.log_prob(torch.cartesian_prod(side, side)).exp().sum()) * float(side[1] - side[0]) ** 2
    # A normal with the ring's covariance has -4.34 nats; started from data the flow is that normal.
    assert before == pytest.approx(-4.34, abs=0.2)
    assert after > before + 0.2
    assert total == pytest.approx(1, abs=0.01)
    assert flow.bijection.certified
    radius = flow.sample((2000,)).norm(dim=1)
    assert float((radius < 1.5).float().mean()) < 0.1
    assert float((flow.bijection.solve(flow.bijection(test)).value - test).abs().max()) < 1e-4


def test_a_stored_one_computes_the_same(tmp_path: Path) -> None:
    config = VectorFlowConfig(dimensions=2, blocks=2, hidden_channels=(8,), channel_mixing=True, solver=Picard())
    model, x = config.build(), ring(64)
    initialize(model, x)
    save_model(model, tmp_path, config=config)
    loaded = load_flow(tmp_path)
    assert loaded.config == config
    assert torch.equal(loaded.model(x), model(x))
    flow = loaded.config.distribution(config.build())
    assert flow.event_shape == (2,)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"blocks": 2', '"blocks": 0'))
    with pytest.raises(DataError, match="blocks must be at least 1"):
        load_flow(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "at least 1; got 2 and 0"),
        ({"hidden_channels": (0,)}, "hidden_channels"),
        ({"lipschitz": 1.0}, "strictly between 0 and 1"),
        ({"activation": "lipswich"}, "lipswish"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
