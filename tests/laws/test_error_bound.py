"""The error bound is never below the error, measured against an inverse in 80-bit arithmetic."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from invattn import KINDS, invertible_attention
from invattn.branches import Branch
from invattn.recipes import Certified
from invattn.solvers import Adaptive, Anderson, NewtonKrylov, Picard, Solver

from .longdouble import UNIT, oracle, true_error
from .registry import randomise, seeded, some_mask
from .test_solver_laws import slow_branch

pytestmark = pytest.mark.skipif(UNIT > 1e-18, reason="needs a long double of more than 53 bits")

BATCH = 25
LEVELS: dict[str, float] = {"1e-6": 1e-6, "1e-12": 1e-12, "full": 0.0}


def draw(number: int) -> tuple[Branch, Tensor]:
    """Draw a certified branch, any of its kinds and options, and inputs for it: float64."""
    choose = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    heads, width = choose.choice([(1, 4), (2, 4), (2, 8), (1, 3)])
    tokens = choose.choice([1, 3, 12, 40])
    lipschitz = choose.choice([0.1, 0.5, 0.9, 0.99])
    spread = choose.choice([0.05, 1.0, 10.0])  # small weights keep their norm; large ones saturate the squash
    if kind == "pointwise" and choose.random() < 0.5:
        heads, width, branch = 1, 4, slow_branch(choose.choice([0.5, 0.9, 0.99])).double()
    else:
        sees = choose.choice(["all", "masked", "causal", "positions"]) if kind != "pointwise" else "all"
        branch = invertible_attention(
            width,
            kind=kind,
            recipe=Certified(position_grid=(tokens,), self_logit=3.0) if sees == "positions" else "certified",
            lipschitz=lipschitz,
            num_heads=heads,
            layout="tokens",
            mask=some_mask(tokens) | torch.eye(tokens, dtype=torch.bool) if sees == "masked" else None,
            causal=sees == "causal",
        ).branch.double()
        randomise(branch, number)
        with torch.no_grad():
            for parameter in branch.parameters():
                parameter.mul_(spread)
    x = torch.randn(BATCH, tokens, width, dtype=torch.float64, generator=seeded(number))
    return branch.eval(), choose.choice([1e-3, 0.3, 1.0, 30.0]) * x


def solver_at(number: int, tolerance: float) -> Solver:
    """Return each solver in turn; the accelerated ones take the default number of steps."""
    options = {"atol": tolerance, "rtol": tolerance}
    choices = [Picard(max_steps=3000, **options), Adaptive(**options), Anderson(**options), NewtonKrylov(**options)]  # type: ignore[arg-type]
    return choices[(number // len(KINDS)) % len(choices)]


def ratios(numbers: range, tolerance: float, dtype: torch.dtype = torch.float64) -> Iterator[np.ndarray]:
    """Invert, check that no error is above its bound, and yield bound / error."""
    for number in numbers:
        branch, x = draw(number)
        with torch.no_grad():
            z = (x + branch(x)).to(dtype)
            branch = branch.to(dtype)
            lipschitz = branch.lipschitz_bound().value
            solution = solver_at(number, tolerance).solve(branch, z, lipschitz=lipschitz)
            assert solution.error_bound is not None
            error, most = true_error(branch, z, solution.value, solution.error_bound)
        bound = solution.error_bound.double().numpy()
        assert (most <= bound).all(), f"case {number}: the error exceeds its bound {float((most / bound).max())} times"
        if tolerance > 0:
            assert solution.converged.all(), f"case {number}: {solution.failures()}"
        yield bound / np.maximum(error, np.finfo(np.float64).tiny)


@pytest.mark.parametrize("number", range(10))
def test_the_oracle_is_the_branch(number: int) -> None:
    branch, x = draw(number)
    with torch.no_grad():
        image = branch(x)
    written_out = torch.from_numpy(oracle(branch)(x.numpy().astype(np.longdouble)).astype(np.float64))
    torch.testing.assert_close(image, written_out, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("level", LEVELS)
def test_double_precision(level: str) -> None:
    found = np.concatenate(list(ratios(range(20), LEVELS[level])))
    assert found.size == 500
    if level != "full":
        assert statistics.median(found) <= 20


@pytest.mark.parametrize("tolerance", [1e-3, 0.0], ids=["1e-3", "full"])
def test_single_precision(tolerance: float) -> None:
    assert np.concatenate(list(ratios(range(20), tolerance, torch.float32))).size == 500


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_ten_thousand_inversions(level: str) -> None:
    found = np.concatenate(list(ratios(range(1000, 1400), LEVELS[level])))
    assert found.size == 10_000
    print(f"tolerance {level}: bound / error: least {found.min():.3g}, median {np.median(found):.3g}")  # noqa: T201
    if level != "full":
        assert statistics.median(found) <= 20
