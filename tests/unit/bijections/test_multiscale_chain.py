"""What looks inside a chain also looks inside the splits of a multi-scale flow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import invattn
from invattn.bijections import Composed, ConstantMemory, ResidualBijection, Split, initialize
from invattn.bijections.replay import own_generators
from invattn.diagnosis import Checks
from invattn.experiments.density.likelihood import block_inputs
from invattn.flows import MultiscaleIResNet
from invattn.logdet import Exact, LogDetEstimator, PowerSeries
from invattn.testing import PeakMemory


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(
    blocks: tuple[int, ...] = (1, 1, 1),
    *,
    side: int = 8,
    hidden: int = 4,
    estimator: LogDetEstimator | None = None,
    prior: int = 3,
) -> Composed:
    torch.manual_seed(1)
    flow = MultiscaleIResNet(
        (2, side, side),
        blocks=blocks,
        hidden_channels=hidden,
        attention="gaussian",
        attention_positions="interleaved:1",
        prior_channels=prior,
        log_det_estimator=Exact() if estimator is None else estimator,
    )
    made = flow.bijection.double()
    initialize(made, images(20, side))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=seeded(2)))
    assert isinstance(made, Composed)
    return made


def images(count: int, side: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(count, 2, side, side, dtype=torch.float64, generator=seeded(seed))


def gradients(bijection: invattn.bijections.Bijection, x: Tensor) -> list[Tensor]:
    point = x.clone().requires_grad_()
    z, log_det = bijection.forward_and_log_det(point)
    loss = (0.5 * z.square().sum(dim=1) - log_det).sum()
    return list(torch.autograd.grad(loss, [point, *bijection.parameters()]))


@pytest.mark.parametrize("keep_every", [None, 2])
def test_constant_memory_gives_the_gradients_of_three_scales(keep_every: int | None) -> None:
    made, x = chain((1, 1), side=4), images(2, 4)
    for one, other in zip(gradients(made, x), gradients(ConstantMemory(made, keep_every=keep_every), x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_probes_inside_a_split_are_drawn_again() -> None:
    def grads(constant: bool) -> tuple[list[Tensor], Tensor]:
        generator = seeded(5)
        made = chain(estimator=PowerSeries(terms=3, generator=generator))
        found = gradients(ConstantMemory(made) if constant else made, images(2))
        return found, generator.get_state()

    (plain, after), (constant, other) = grads(False), grads(True)
    for one, two in zip(plain, constant, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)
    assert torch.equal(after, other)


def peak(blocks: int, *, constant: bool) -> int:
    made = chain((1, blocks), hidden=16, estimator=PowerSeries(terms=1), prior=0)
    x = images(4)
    bijection = ConstantMemory(made) if constant else made
    with PeakMemory() as memory:
        z, log_det = bijection.forward_and_log_det(x)
        (z.square().sum() - log_det.sum()).backward()  # type: ignore[no-untyped-call]
    return memory.peak


def test_memory_does_not_grow_with_the_blocks_behind_a_split() -> None:
    """Gradients of parameters are held in any case; activations are not."""
    few, many = (peak(blocks, constant=True) for blocks in (1, 4))
    plain_few, plain_many = (peak(blocks, constant=False) for blocks in (1, 4))
    parameters = 8 * sum(p.numel() for p in chain((1, 4), hidden=16, prior=0).parameters())
    assert many - few < 0.5 * (plain_many - plain_few)
    assert many < 0.5 * plain_many + parameters


def test_generators_blocks_and_parts_are_found_behind_splits() -> None:
    generator = seeded(3)
    made = chain(estimator=PowerSeries(generator=generator))
    assert own_generators(made) == [generator]
    assert sum(isinstance(part, Split) for part in made.parts()) == 1
    found = block_inputs(made, images(2))
    assert len(found) == sum(isinstance(part, ResidualBijection) for part in made.modules()) == 6
    widths = [point.shape[-2] for _, point in found.values() if point.dim() == 4]
    assert widths == sorted(widths, reverse=True)
    assert made.certified


def test_every_block_behind_a_split_is_diagnosed_at_its_own_input() -> None:
    made, x = chain((1, 1), side=4), images(1, 4)
    checks = Checks(spectrum_steps=8, path=(1.0,), path_steps=5, ascent=None)
    for block, point in block_inputs(made, x).values():
        report = invattn.diagnose(block, point, checks=checks, generator=seeded(4))
        assert not bool(report.flagged.any())
    with pytest.raises(ValueError, match="not a single residual block"):
        invattn.diagnose(made, x)


def test_a_split_without_a_learned_prior_has_constants_and_one_with_says_why_not() -> None:
    made = chain(prior=0)
    constants, (x, y) = made.bi_lipschitz((2, 8, 8), norm="2"), (images(4), images(4, seed=6))
    with torch.no_grad():
        ratio = (made(x) - made(y)).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert constants.lower <= float(ratio.min()) <= float(ratio.max()) <= constants.upper
    with pytest.raises(invattn.CertificateError, match="learned prior stretches without bound"):
        chain(prior=2).bi_lipschitz((2, 8, 8))
    solution = made.solve(made(x).detach())
    assert solution.error_bound is not None
    assert bool(((solution.value - x).flatten(1).norm(dim=1) <= solution.error_bound).all())
