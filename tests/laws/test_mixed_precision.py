"""Under autocast only branches lose precision: log-determinants are summed in float32, formulas are evaluated in it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.bijections import Bijection, Composed, initialize
from invattn.bijections.closed_form import ClosedForm
from invattn.experiments.density.points import PointSets
from invattn.flows import TOKEN_MIXERS, Flow, StandardNormal, token_flow
from invattn.logdet import Exact, LogDetEstimator, PowerSeries, RussianRoulette

from .registry import BIJECTIONS, BijectionCase


def both(bijection: Bijection, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(z, log_det) in float32 and under bfloat16 autocast, with the same probes."""
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            z, log_det = bijection.forward_and_log_det(x)
        found.append((z.detach(), log_det.detach()))
    return found[0], found[1]


# Inverting to the tolerance of float32 a branch that is evaluated in bfloat16 cannot succeed: "there_and_back" does.
@pytest.mark.parametrize("case", [case for case in BIJECTIONS if case.name != "there_and_back"], ids=str)
def test_layers_keep_float32_and_formulas_every_bit(case: BijectionCase) -> None:
    bijection, x = case.make(3).float(), case.inputs().float()
    plain, rough = both(bijection, x)
    assert rough[0].dtype == rough[1].dtype == torch.float32
    if all(isinstance(part, ClosedForm) for part in bijection.parts()):
        assert torch.equal(plain[0], rough[0])
        assert torch.equal(plain[1], rough[1])


@pytest.mark.parametrize(
    "estimator", [PowerSeries(terms=4), RussianRoulette(p=0.5), Exact()], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("attention", TOKEN_MIXERS)
def test_a_flow_stays_near_and_its_log_determinant_in_float32(attention: str, estimator: LogDetEstimator) -> None:
    """bfloat16 has 8 bits: every product is off by up to 2^-9, so that log p of 64 numbers moves by about 0.1."""
    chain = token_flow(2, attention=attention, blocks=1, attention_layers=1, log_det_estimator=estimator)
    x = PointSets(seed=1)(torch.arange(4))
    initialize(chain, x)
    assert isinstance(chain, Composed)
    plain, rough = both(chain, x)
    assert rough[0].dtype == rough[1].dtype == torch.float32
    assert 0 < float((plain[0] - rough[0]).abs().max()) < 0.03
    assert float((plain[1] - rough[1]).abs().max()) < 0.3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = Flow(chain, StandardNormal((32, 2)))(x)
    assert log_prob.dtype == torch.float32
    log_prob.mean().backward()
    assert all(part.grad is not None and bool(part.grad.isfinite().all()) for part in chain.parameters())
    assert all(part.grad.dtype == torch.float32 for part in chain.parameters() if part.grad is not None)


@pytest.mark.parametrize("attention", ["gaussian", "concatenation"])
def test_the_certificate_does_not_notice_autocast(attention: str) -> None:
    chain = token_flow(2, attention=attention, blocks=1, attention_layers=1)
    blocks = [part for part in chain.parts() if not isinstance(part, ClosedForm)]
    plain = [part.lipschitz_bound().value for part in blocks]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [part.lipschitz_bound().value for part in blocks] == plain
