"""Dequantisation: noise in its cell with the density it says, bounds on the right side, and what learning it gains."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from invattn.bijections import Composed, Reshape, ResidualBijection
from invattn.flows import (
    Dequantised,
    Flow,
    MultiscaleIResNet,
    StandardNormal,
    UniformDequantisation,
    VariationalDequantisation,
    bits_per_dimension,
)
from invattn.hub import ImageFlowConfig, load_flow, save_model
from invattn.logdet import Exact, Shard

SHAPE = (2, 1, 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(module: nn.Module, spread: float = 0.5, seed: int = 1) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=seeded(seed), dtype=parameter.dtype))


def variational(blocks: int = 1, levels: int = 4, seed: int = 1) -> VariationalDequantisation:
    made = VariationalDequantisation(SHAPE, levels=levels, hidden_channels=6, features=5, blocks=blocks).double()
    drawn(made, seed=seed)
    return made


def normal_flow() -> Flow:
    """Standard normal x with a shape of images: P of a cell is a product of differences of the normal distribution."""
    return Flow(Composed([Reshape(SHAPE)]), StandardNormal((2,)).double())


def every_value(levels: int = 4) -> Tensor:
    return torch.cartesian_prod(torch.arange(levels), torch.arange(levels)).view(-1, *SHAPE)


def exact_log_probability(values: Tensor, levels: int, low: float) -> Tensor:
    edges = values.double() / levels + low
    cells = torch.special.ndtr(edges + 1 / levels) - torch.special.ndtr(edges)
    return cells.log().flatten(1).sum(dim=1)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_learned_noise_lies_in_its_cell_and_has_the_density_it_says(blocks: int) -> None:
    """E over q of 1 / q(u) is the volume of the cell, 1; and E over q of f(u) / q(u) its integral."""
    q = variational(blocks)
    values = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, *SHAPE).expand(20000, *SHAPE)
    with torch.no_grad():
        noise, log_q = q.draw(values, generator=seeded(2))
    assert noise.shape == values.shape
    assert bool((noise > 0).all())
    assert bool((noise < 1).all())
    first, second = noise.flatten(1).T
    for function, integral in ((torch.ones_like(first), 1.0), (first * second, 0.25), (first.square(), 1 / 3)):
        ratio = function * (-log_q).exp()
        assert abs(float(ratio.mean()) - integral) <= 5 * float(ratio.std()) / math.sqrt(len(ratio))
    assert abs(float(noise.mean()) - 0.5) > 0.01, "noise that has learned something is not uniform"
    other = q.draw(torch.zeros_like(values), generator=seeded(2))[0].detach()
    assert float((noise - other).abs().max()) > 1e-2


def test_the_log_density_is_that_of_the_change_of_variables() -> None:
    q, values = variational(2), every_value()[5:6].double()

    def logits(noise: Tensor) -> Tensor:
        context, mean, log_scale = q._features(values)
        return mean + log_scale.exp() * q.residual.given(context)(noise)

    uniform, log_q = q.draw(values, generator=seeded(3))
    noise = torch.randn(1, *SHAPE, dtype=torch.float64, generator=seeded(3)).view(1, 2)
    jacobian = torch.autograd.functional.jacobian(lambda e: logits(e).sigmoid()[0], noise)[:, 0]
    torch.testing.assert_close(logits(noise).sigmoid().view_as(uniform), uniform)
    expected = -0.5 * noise.square().sum() - math.log(2 * math.pi) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(log_q[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["uniform", "variational"])
def test_bounds_rise_to_the_exact_probability(kind: str) -> None:
    """The flow is standard normal, P(v) known: one sample is below it, many are nearer, in expectation never above."""
    q = UniformDequantisation() if kind == "uniform" else variational()
    low, levels = -1.0, 4
    model, values = Dequantised(normal_flow(), q, levels=levels, low=low), every_value(levels)
    exact = exact_log_probability(values, levels, low)
    copies = values.repeat(300, 1, 1, 1)
    with torch.no_grad():
        bounds = [model.log_prob_bound(copies, samples=k, generator=seeded(4)).view(300, -1) for k in (1, 16)]
    means = [bound.mean(dim=0) for bound in bounds]
    errors = [5 * bound.std(dim=0) / math.sqrt(300) for bound in bounds]
    assert all(bool((mean <= exact + error).all()) for mean, error in zip(means, errors, strict=True))
    gaps = [float((exact - mean).mean()) for mean in means]
    assert 0 < gaps[1] < gaps[0] / 4
    # One cell with all its mass: the mean of p / q itself is P(v), without bias.
    single = (bounds[0].exp().mean(dim=0) - exact.exp()).abs()
    assert bool((single <= 5 * bounds[0].exp().std(dim=0) / math.sqrt(300)).all())


def test_a_wrong_sign_or_a_missing_factor_would_be_seen() -> None:
    """The mutations of the bound: + log q, no log q, no levels^d; each misses the exact probability of a cell."""
    q, low, levels = variational(), -1.0, 4
    values, flow = every_value(levels)[6:7].repeat(4000, 1, 1, 1), normal_flow()
    exact = float(exact_log_probability(values[:1], levels, low).exp())
    with torch.no_grad():
        noise, log_q = q.draw(values.double(), generator=seeded(5))
        log_p = flow.log_prob((values + noise) / levels + low)
    cell = 2 * math.log(levels)
    right = (log_p - cell - log_q).exp()
    assert abs(float(right.mean()) - exact) <= 5 * float(right.std()) / math.sqrt(4000)
    for wrong in (log_p - cell + log_q, log_p - cell, log_p - log_q, log_p + cell - log_q):
        assert abs(float(wrong.exp().mean()) - exact) > 5 * float(wrong.exp().std()) / math.sqrt(4000)


def test_learning_the_noise_gains_what_uniform_noise_loses() -> None:
    """Binary values under a normal density: cells of unequal mass, where the best q follows p inside the cell."""
    torch.manual_seed(0)
    flow = Flow(Composed([Reshape(SHAPE)]), StandardNormal((2,)))
    q = VariationalDequantisation(SHAPE, levels=2, hidden_channels=8, features=8)
    learned, uniform = (Dequantised(flow, part, levels=2, low=-6.0) for part in (q, None))
    values = every_value(2)
    model_values = values.repeat(64, 1, 1, 1)
    optimiser = torch.optim.Adam(q.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = -learned(model_values).mean()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        scores = [float(part.elbo(model_values, generator=seeded(6)).mean()) for part in (learned, uniform)]
    exact = float(exact_log_probability(values, 2, -6.0).mean())
    assert scores[1] < scores[0] - 0.1
    assert exact - scores[0] < 0.2 * (exact - scores[1])


def test_the_start_is_nearly_uniform_and_the_generator_decides() -> None:
    q = VariationalDequantisation((3, 8, 8))
    values = torch.randint(0, 256, (40, 3, 8, 8), generator=seeded(7)).float()
    with torch.no_grad():
        _, log_q = q.draw(values, generator=seeded(8))
        assert 0 < float(log_q.mean()) / 192 < 0.1
        assert torch.equal(q.draw(values, generator=seeded(9))[0], q.draw(values, generator=seeded(9))[0])
        uniform = UniformDequantisation()
        noise, nothing = uniform.draw(values, generator=seeded(9))
    assert not torch.equal(noise, uniform.draw(values, generator=seeded(10))[0])
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.02)
    assert not bool(nothing.any())


def test_images_are_trained_scored_and_sampled_together() -> None:
    flow = MultiscaleIResNet(
        (1, 4, 4), blocks=(1, 1), hidden_channels=4, attention="gaussian", prior_channels=4, log_det_estimator=Exact()
    )
    model = Dequantised(flow, VariationalDequantisation((1, 4, 4), hidden_channels=4, features=4), levels=16)
    values = torch.randint(0, 16, (6, 1, 4, 4), generator=seeded(11))
    model(values).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    samples = model.sample((5,))
    assert (samples.shape, samples.dtype) == ((5, 1, 4, 4), torch.int64)
    assert 0 <= int(samples.min()) <= int(samples.max()) < 16
    with torch.no_grad():
        one, many = (model.log_prob_bound(values, samples=k, generator=seeded(12)) for k in (1, 20))
    assert float(many.mean()) > float(one.mean())
    assert all(part.certified for part in model.modules() if isinstance(part, ResidualBijection))


def test_bits_per_dimension_of_the_uniform_distribution_is_the_number_of_bits() -> None:
    log_prob = torch.full((3,), -12 * math.log(256))
    torch.testing.assert_close(bits_per_dimension(log_prob, 12), torch.full((3,), 8.0))


def test_what_does_not_fit_is_one_clear_error() -> None:
    model = Dequantised(normal_flow(), levels=4)
    with pytest.raises(ValueError, match="whole numbers from 0 to 3; got 0 to 4"):
        model.elbo(torch.tensor([0, 4]).view(1, *SHAPE))
    with pytest.raises(ValueError, match="dequantisation itself adds the noise"):
        model.elbo(torch.tensor([0.5, 1.0]).view(1, *SHAPE))
    with pytest.raises(ValueError, match=r"values must have shape \(B, 2, 1, 1\); got \(1, 2\)"):
        model.elbo(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="samples must be at least 1"):
        model.log_prob_bound(every_value(), samples=0)
    with pytest.raises(ValueError, match="levels must be at least 2"):
        Dequantised(normal_flow(), levels=1)
    with pytest.raises(ValueError, match="image_shape must be"):
        VariationalDequantisation((8, 8))
    with pytest.raises(ValueError, match="levels >= 2"):
        VariationalDequantisation(SHAPE, levels=1)
    with pytest.raises(ValueError, match="images must have shape"):
        variational().draw(torch.zeros(1, 3, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("name", ["uniform", "variational"])
def test_learned_noise_is_stored_with_the_flow(tmp_path: Path, name: str) -> None:
    config = ImageFlowConfig(image_shape=(1, 4, 4), blocks=(1,), hidden_channels=4, dequantisation=name, grey_levels=16)
    model = config.build()
    drawn(model, spread=0.1)
    save_model(model, tmp_path, config=config)
    loaded = load_flow(tmp_path)
    assert loaded.config == config
    assert isinstance(loaded.model, Composed)
    values = torch.randint(0, 16, (3, 1, 4, 4), generator=seeded(13))
    scores = []
    for chain in (model, loaded.model):
        torch.manual_seed(3)
        scores.append(config.dequantised(chain).log_prob_bound(values, samples=2, generator=seeded(14)))
    assert torch.equal(*scores)
    assert ("dequantisation.head.weight" in model.state_dict()) == (name == "variational")
    with pytest.raises(ValueError, match="unknown dequantisation 'unifrom'"):
        ImageFlowConfig(image_shape=(1, 4, 4), blocks=(1,), dequantisation="unifrom")
    with pytest.raises(ValueError, match="grey_levels must be at least 2"):
        ImageFlowConfig(image_shape=(1, 4, 4), blocks=(1,), grey_levels=1)


@pytest.mark.parametrize("channels", [3, 20])
def test_processes_that_share_a_batch_draw_what_one_draws(channels: int) -> None:
    """20 channels: the log-determinant needs probes too."""
    shape = (channels, 2, 2)
    values = torch.randint(0, 256, (4, *shape), generator=torch.Generator().manual_seed(0)).float()
    makers = (
        lambda shard: UniformDequantisation(shard=shard),
        lambda shard: VariationalDequantisation(shape, hidden_channels=4, features=3, shard=shard),
    )
    for make in makers:
        found = []
        for shard in (Shard(), Shard(0, 2), Shard(1, 2)):
            torch.manual_seed(1)
            noise = make(shard)
            torch.manual_seed(2)
            rows = values if shard.parts == 1 else values.chunk(2)[shard.part]
            found.append([part.detach() for part in noise.draw(rows)])
        for whole, first, second in zip(*found, strict=True):
            torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-5, atol=1e-4)
