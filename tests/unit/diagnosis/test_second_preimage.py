"""Folds that are known in closed form, and a contraction without any."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from invattn import invertible_attention
from invattn.branches import Branch
from invattn.diagnosis import Checks, SecondPreimageSearch, det_sign, diagnose_branch, fold_direction, second_preimages
from invattn.recipes import Recipe

FAILURES = [
    # kind, W_L, query and key factors, S, D: docs/theory.md, "What no constraint on the values alone can do"
    ("gaussian", -0.9, None, 3.0, 2.232428648257508),
    ("embedded_gaussian", 0.9, (2.0, -2.0), 2.0, 1.547473947145906),
    ("dot_product", 0.9, (2.0, -2.0), 2.0, 1.547473947145906),
    ("concatenation", 0.9, (-2.0, -1.0), 2.0, 1.451503386854067),
]


class Slopes(Branch):
    """g(x)_c = s_c tanh(x_c): the Jacobian at 0 is diagonal with entries s_c."""

    def __init__(self, *slopes: float) -> None:
        super().__init__()
        self.channels = len(slopes)
        self.slopes = nn.Parameter(torch.tensor(slopes, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.slopes * x.tanh()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def failing_branch(kind: str, output: float, factors: tuple[float, float] | None, recipe: str | Recipe) -> Branch:
    block = invertible_attention(1, kind=kind, recipe=recipe, layout="tokens").double().eval()
    weights = {"value.weight": 0.9, "output.weight": output}
    if factors is not None:
        weights |= {"score.query.weight": factors[0], "score.key.weight": factors[1]}
    with torch.no_grad():
        for name, parameter in block.branch.named_parameters():
            parameter.fill_(weights.get(name, 1.0 if name.startswith("score.mix") else 0.0))
    return block.branch


def positive_root(slope: float) -> float:
    """The y > 0 with y = slope tanh(y), slope > 1, by bisection."""
    low, high = 1e-6, slope
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < slope * math.tanh(middle) else (low, middle)
    return low


def test_the_two_further_preimages_of_zero() -> None:
    branch = Slopes(-1.5)
    found = second_preimages(branch, torch.zeros(1, 1, 1, dtype=torch.float64), generator=seeded())
    assert found.found.tolist() == [True]
    assert float(found.value.abs()) == pytest.approx(positive_root(1.5), abs=1e-10)
    assert float(found.distance) == pytest.approx(positive_root(1.5), abs=1e-10)
    assert float(found.output_difference) <= 1e-10
    assert float(found.pull) == 1.0  # from 0 to the root the residual points away from 0 everywhere


def test_only_the_channel_that_folds_moves_and_the_direction_is_its_own() -> None:
    branch, x = Slopes(0.8, -1.7, -0.9), torch.zeros(2, 1, 3, dtype=torch.float64)
    direction = fold_direction(branch, x, generator=seeded())
    assert torch.allclose(direction.value.real, torch.full((2,), -1.7, dtype=torch.float64))
    assert torch.allclose(direction.vector.abs(), torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), atol=1e-10)
    found = second_preimages(branch, x, generator=seeded())
    expected = torch.tensor([0.0, positive_root(1.7), 0.0], dtype=torch.float64)
    assert torch.allclose(found.value.abs(), expected.expand(2, 1, 3), atol=1e-9)


@pytest.mark.parametrize("slopes", [(-0.95, 0.5), (5.0, 2.0), (-1.0, 0.0)])
def test_no_preimage_where_there_is_none(slopes: tuple[float, ...]) -> None:
    """x + s tanh(x) is increasing for s >= -1, however large s is."""
    branch = Slopes(*slopes)
    x = torch.randn(20, 1, 2, dtype=torch.float64, generator=seeded(1))
    found = second_preimages(branch, x, generator=seeded())
    assert not found.found.any()
    assert torch.equal(found.value, x)
    assert torch.equal(found.distance, torch.zeros(20, dtype=torch.float64))


def test_a_start_that_leaves_the_finite_numbers_does_no_harm() -> None:
    class Cubic(Branch):
        channels = 1

        def forward(self, x: Tensor) -> Tensor:
            return x**3 - 2 * x

    x = torch.tensor([0.0, 3.0], dtype=torch.float64).view(2, 1, 1)
    found = second_preimages(Cubic(), x, search=SecondPreimageSearch(distances=(40.0, 1.0)), generator=seeded())
    assert found.found.tolist() == [True, False]  # x^3 - x vanishes at -1, 0, 1, and is 24 at 3 alone
    assert float(found.value[0].abs()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("tokens", "kind", "output", "factors", "total", "gap"), [*((2, *row) for row in FAILURES), (8, *FAILURES[0])]
)
def test_the_closed_form_collisions_are_found_and_the_certified_block_has_none(
    tokens: int, kind: str, output: float, factors: tuple[float, float] | None, total: float, gap: float
) -> None:
    x = torch.full((1, tokens, 1), total / 2, dtype=torch.float64)
    report = diagnose_branch(failing_branch(kind, output, factors, "paper"), x, generator=seeded())
    assert report.second_preimage.all()
    assert float(report.output_difference.max()) <= 1e-9
    assert report.reasons(0) == ("repelling", "slow", "competing")
    assert float(report.lipschitz_ratio) > 1
    if tokens == 2:
        assert report.det_sign.tolist() == [-1]
        expected = torch.tensor([(total - gap) / 2, (total + gap) / 2], dtype=torch.float64)
        assert torch.allclose(report.preimage.flatten().sort().values, expected, atol=1e-9)

    certified = failing_branch(kind, output, factors, "certified")
    checks = Checks(search=SecondPreimageSearch(from_radius=0.0))
    inputs = torch.cat([x, x + torch.randn(4, tokens, 1, dtype=torch.float64, generator=seeded(2))])
    proven = diagnose_branch(certified, inputs, checks=checks, generator=seeded())
    assert not proven.second_preimage.any()
    assert not proven.flagged.any()
    assert proven.det_sign.tolist() == [1] * 5
    assert bool((proven.lipschitz_ratio <= certified.lipschitz_bound().value).all())


def test_determinants_agree_with_the_closed_form() -> None:
    branch = Slopes(-1.5, -3.0, 0.5)
    x = torch.zeros(2, 1, 3, dtype=torch.float64)
    assert det_sign(branch, x).tolist() == [1, 1]  # (-0.5) (-2) (1.5)
    x[1, 0, 1] = 5.0  # beyond the fold of the second channel
    assert det_sign(branch, x).tolist() == [1, -1]
    assert det_sign(branch, x[:0]).tolist() == []
    assert det_sign(Slopes(math.nan), torch.zeros(1, 1, 1, dtype=torch.float64)).tolist() == [0]


@pytest.mark.parametrize(
    "options", [{"distances": ()}, {"distances": (-1.0,)}, {"relaxation": 0.0}, {"relaxation": 1.5}, {"rounds": 0}]
)
def test_impossible_searches_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        SecondPreimageSearch(**options)  # type: ignore[arg-type]
