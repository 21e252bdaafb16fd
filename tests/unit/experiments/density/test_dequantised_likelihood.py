"""Maximum likelihood of whole values: what learned noise gains, and where a loss that is not finite begins."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from invattn.bijections import ActNorm, Composed, initialize
from invattn.experiments.density.data import bits
from invattn.experiments.density.training import MaximumLikelihood
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.fit import fit
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.kit.training.optimisation import Optimisation
from invattn.flows import Dequantised, Flow, StandardNormal, VariationalDequantisation

SHAPE, STEPS, BATCH = (2, 1, 1), 150, 64


def values(index: Tensor, epoch: int = 0) -> Tensor:
    """Every pair of two bits, one after another: P(v) = 1/4, 1 bit per dimension."""
    return torch.stack([index % 2, index // 2 % 2], dim=1).float().view(-1, *SHAPE)


def module(kind: str) -> MaximumLikelihood:
    """A flow that can only move and scale: with it v + u is normal, whatever u is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        chain = Composed([ActNorm(2)])
        initialize(chain, (values(torch.arange(256)) + torch.rand(256, *SHAPE)) / 2 - 0.5)
        noise = VariationalDequantisation(SHAPE, levels=2, hidden_channels=8, features=8)
    model = Dequantised(Flow(chain, StandardNormal(SHAPE)), noise if kind == "variational" else None, levels=2)
    return MaximumLikelihood(model, optimisation=Optimisation(steps=STEPS, lr=0.02, warm_up=5), seed=3, unit=bits())


def run(made: MaximumLikelihood, path: Path) -> tuple[int | None, str]:
    loader = ResumableLoader(values, num_samples=STEPS * BATCH, batch_size=BATCH, epochs=1, seed=1)
    found = fit(made, loader, checkpoint=path, resume=False, progress=SilentProgress())
    return found.stopped_at, found.stopped_in


def test_learned_noise_pays_where_uniform_noise_is_hard_for_the_flow(tmp_path: Path) -> None:
    """Two equal bits and uniform noise are uniform on [0, 2): a normal density needs log2 sqrt(2 pi e / 12) more."""
    found = {}
    many = values(torch.arange(4096))
    for kind in ("uniform", "variational"):
        made = module(kind)
        run(made, tmp_path / f"{kind}.ckpt")
        assert made.averaged_flow is made.average.flow
        assert isinstance(made.average, Dequantised)
        with torch.no_grad():
            elbo = made.average.elbo(many, generator=torch.Generator().manual_seed(0)) / 2 / math.log(2)
        found[kind] = -float(elbo.mean()), 5 * float(elbo.std()) / 64
    (plain, plain_error), (learned, error) = found["uniform"], found["variational"]
    assert plain == pytest.approx(1 + 0.5 * math.log2(2 * math.pi * math.e / 12), abs=0.02 + plain_error)
    assert 1 - error < learned < 1 + 0.4 * (plain - 1)


def test_noise_that_is_not_finite_is_named(tmp_path: Path) -> None:
    made = module("variational")
    assert isinstance(made.flow, Dequantised)
    assert isinstance(made.flow.dequantisation, VariationalDequantisation)
    with torch.no_grad():
        made.flow.dequantisation.head.bias.fill_(math.nan)
    assert run(made, tmp_path / "state.ckpt") == (0, "the dequantisation noise")
