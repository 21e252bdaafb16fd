"""Parts of a batch: the processes together draw what one process draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.logdet import LogDetEstimator, PowerSeries, RussianRoulette, Shard

X = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MATRIX = 0.4 * torch.tensor([[1.0, -0.5], [0.7, 0.3]], dtype=torch.float64)


def branch(x: Tensor) -> Tensor:
    return torch.tanh(x @ MATRIX)


def make(kind: str, *, probe: str, seed: int, shard: Shard) -> LogDetEstimator:
    generator = torch.Generator().manual_seed(seed)
    if kind == "series":
        return PowerSeries(terms=4, probes=2, probe=probe, generator=generator, shard=shard)
    return RussianRoulette(exact_terms=1, p=0.7, probes=3, probe=probe, generator=generator, shard=shard)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
@pytest.mark.parametrize("kind", ["series", "roulette"])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_draw_the_probes_of_the_whole_batch(kind: str, probe: str, parts: int) -> None:
    for seed in range(4):  # the roulette's number of terms differs between seeds, and must not between parts
        _, whole = make(kind, probe=probe, seed=seed, shard=Shard())(branch, X)
        found = [
            make(kind, probe=probe, seed=seed, shard=Shard(part, parts))(branch, rows)[1]
            for part, rows in enumerate(X.chunk(parts))
        ]
        torch.testing.assert_close(torch.cat(found), whole, rtol=1e-12, atol=1e-12)


def test_parts_have_different_probes() -> None:
    values = [make("series", probe="gaussian", seed=0, shard=Shard(part, 2))(branch, X[:4])[1] for part in range(2)]
    assert bool((values[0] != values[1]).all())


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and parts - 1 = 1; got 2"):
        Shard(2, 2)
