"""Generated point sets: a function of seed and number, with the spreads they are described with."""

from __future__ import annotations

import math

import torch

from invattn.experiments.density.points import PointSets


def test_a_set_is_a_function_of_seed_and_number() -> None:
    sets = PointSets(seed=7)
    batch = sets(torch.tensor([5, 0, 3]))
    assert batch.shape == (3, 32, 2)
    assert batch.dtype == torch.float32
    torch.rand(3)
    assert torch.equal(sets(torch.tensor([0, 3]), 4), batch[1:])
    assert not torch.equal(PointSets(seed=900)(torch.tensor([5])), batch[:1])
    assert not torch.equal(batch[0], batch[1])


def test_points_lie_in_at_most_three_tight_clusters_around_spread_centres() -> None:
    sets = PointSets(seed=1)(torch.arange(400))
    assert abs(float(sets.mean())) < 0.15
    assert abs(float(sets.std()) - (2.0**2 + 0.15**2) ** 0.5) < 0.1
    distance = torch.cdist(sets, sets)
    apart = distance[(distance > 0) & (distance < 0.3)]  # two points of one cluster: |x - y|^2 / 0.045 is exponential
    expected = 1 - math.exp(-(0.3**2) / (4 * 0.15**2))
    within = (distance > 0).float().sum() * (1 / 3)
    assert abs(float(len(apart) / within) - expected) < 0.05
