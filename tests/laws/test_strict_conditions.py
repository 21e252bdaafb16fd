"""Conditions 1-4 of Theorem 1 hold, with the constants the strict recipe states, for the maps it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import cast

import pytest
import torch
from torch import Tensor

from invattn import ATTENTION_KINDS, invertible_attention
from invattn.branches import CertifiedAttention
from invattn.functional import squash
from invattn.lipschitz.theorems import Conditions
from invattn.recipes import Certified, Strict

from .adversary import largest_ratio
from .registry import randomise, seeded

CHANNELS = 4
ROUND = 1 + 1e-9  # quotients of finite pairs in float64

Map = Callable[[Tensor], Tensor]


def by_rows(matrix: Tensor) -> Tensor:
    """The norm of an N x N map on tokens with max_i |x_i|_2."""
    return matrix.abs().sum(dim=-1).amax(dim=-1)


def token_size(tokens: Tensor) -> Tensor:
    return tokens.square().sum(dim=-1).clamp_min(1e-300).sqrt().amax(dim=-1)


def frobenius(matrix: Tensor) -> Tensor:
    return matrix.square().sum(dim=(-2, -1)).sqrt()


def strict_branch(kind: str, *, seed: int, recipe: Strict | Certified | None = None) -> CertifiedAttention:
    block = invertible_attention(CHANNELS, kind=kind, recipe=recipe or Strict(), layout="tokens").double()
    randomise(block, seed)
    return cast(CertifiedAttention, block.branch.eval())


def parts(branch: CertifiedAttention) -> tuple[Map, Map]:
    """R and F of one head."""
    return lambda x: branch.attention_weights(x)[:, 0], lambda x: squash(branch.value(x))


def steepest(function: Map, out: Map, size: Map, *, tokens: int, seed: int, steps: int = 35) -> float:
    """Climb |f(x) - f(y)| / |x - y| from points of several sizes."""
    generator = seeded(seed)
    scale = torch.tensor([0.1, 0.5, 1.0, 1.0, 2.0, 5.0], dtype=torch.float64)[:, None, None]
    x = (scale * torch.randn(6, tokens, CHANNELS, dtype=torch.float64, generator=generator)).requires_grad_()
    step = (0.1 * torch.randn(6, tokens, CHANNELS, dtype=torch.float64, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([x, step], lr=0.05)
    best = 0.0
    for _ in range(steps):
        ratio = out(function(x + step) - function(x)) / size(step)
        best = max(best, float(ratio.detach().amax()))
        optimizer.zero_grad()
        (-ratio.sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return best


@pytest.mark.parametrize(("kind", "tokens"), [*product(ATTENTION_KINDS, (2, 5))])
def test_the_four_conditions_in_the_norm_over_tokens(kind: str, tokens: int) -> None:
    branch = strict_branch(kind, seed=tokens)
    factors = branch.lipschitz_bound().factors
    mu_r, c_f, mu_f, c_r = (factors[f"head_0.{name}"] for name in ("mu_R", "c_F", "mu_F", "c_R"))
    response, features = parts(branch)
    with torch.no_grad():
        for scale in (0.1, 1.0, 100.0):
            x = scale * torch.randn(50, tokens, CHANNELS, dtype=torch.float64, generator=seeded(1))
            assert (by_rows(response(x)) <= mu_r * ROUND).all()
            assert (token_size(features(x)) <= mu_f).all()
        assert float(token_size(features(x)).amax()) > 0.95 * mu_f
    assert 0.5 * c_f < steepest(features, token_size, token_size, tokens=tokens, seed=2) <= c_f * ROUND
    found = steepest(response, by_rows, token_size, tokens=tokens, seed=3)
    assert found <= c_r * ROUND
    assert found > 0.1 * c_r  # the paths are added, though a squashed query is never both long and sensitive


@pytest.mark.parametrize(("kind", "tokens"), [*product(["gaussian", "embedded_gaussian", "dot_product"], (6,))])
def test_the_four_conditions_in_the_frobenius_norm(kind: str, tokens: int) -> None:
    """App. A.3.2: the same maps, the constants that grow with N (docs/theory.md)."""
    branch = strict_branch(kind, seed=tokens)
    query, key = (float(norm.detach()) for norm in branch.score.paths())
    value = float(torch.linalg.svdvals(branch.value.weight.detach())[0])
    stated = Conditions.frobenius(value_norm=value, query=query, key=key, tokens=tokens)
    response, features = parts(branch)
    with torch.no_grad():
        x = 100 * torch.randn(200, tokens, CHANNELS, dtype=torch.float64, generator=seeded(1))
        assert (frobenius(response(x)) <= stated.mu_r * ROUND).all()
        assert (frobenius(features(x)) <= stated.mu_f).all()
    assert steepest(features, frobenius, frobenius, tokens=tokens, seed=2) <= stated.c_f * ROUND
    found = steepest(response, frobenius, frobenius, tokens=tokens, seed=3)
    assert 0.1 * stated.c_r < found <= stated.c_r * ROUND


@pytest.mark.parametrize("tokens", [4, 64])
def test_the_growth_with_the_tokens_in_the_frobenius_norm_is_real(tokens: int) -> None:
    """One key shifts the weights of all queries: |dP|_F = sqrt(N / 8) for a key of sensitivity 1, two keys in play."""
    logits = torch.full((tokens, tokens), -1e3, dtype=torch.float64)
    logits[:, :2] = 0.0
    _, change = torch.func.jvp(lambda shift: (logits + shift).softmax(-1), *_one_key(tokens))
    assert float(frobenius(change)) == pytest.approx(math.sqrt(tokens / 8), rel=1e-12)
    stated = Conditions.frobenius(value_norm=0.0, query=0.0, key=1.0, tokens=tokens)
    assert stated.c_r == pytest.approx(math.sqrt(tokens) / 2)
    assert frobenius(change) <= stated.c_r


def _one_key(tokens: int) -> tuple[tuple[Tensor], tuple[Tensor]]:
    direction = torch.zeros(tokens, dtype=torch.float64)
    direction[0] = 1.0
    return (torch.zeros(tokens, dtype=torch.float64),), (direction,)


@pytest.mark.parametrize(("kind", "tokens"), [*product(ATTENTION_KINDS, (8,))])
def test_no_search_exceeds_the_strict_bound(kind: str, tokens: int) -> None:
    branch = strict_branch(kind, seed=7)
    bound = branch.lipschitz_bound().value
    assert 0.9 * (1 - 3e-5) <= bound <= 0.9
    found = largest_ratio(branch, tokens=tokens, restarts=6, steps=15, generator=seeded(8))
    assert 0.05 * bound < found.ratio <= bound


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_theorem_r_leaves_more_to_the_output_map_at_equal_logits(kind: str) -> None:
    """The same V and alpha, two paths of strength a: (V + 2 a) / F(V, a) times |W_L|, at most (1 + sqrt(17)) / 2."""
    strict = strict_branch(kind, seed=11)
    score = strict.score
    with torch.no_grad():
        for name, parameter in score.named_parameters():  # two equal paths
            if name == "key.weight":
                parameter.copy_(score.get_parameter("query.weight"))
            if name.startswith("mix"):
                parameter.copy_(parameter[:, : parameter.shape[1] // 2].repeat(1, 2))
    numbers = strict.lipschitz_bound().factors
    a, b = (float(path.detach()) for path in score.paths())
    assert a == pytest.approx(b)
    certified = strict_branch(kind, seed=11, recipe=Certified(ratio=a / numbers["head_0.c_F"]))
    certified.load_state_dict(strict.state_dict())
    other = certified.lipschitz_bound().factors
    assert other["head_0.alpha"] == pytest.approx(numbers["head_0.alpha"])
    V = numbers["head_0.c_F"]
    gain = (V + 2 * a) / (V + a**2 / (4 * V) if a <= 2 * V else a)
    assert other["output_norm"] / numbers["output_norm"] == pytest.approx(gain, rel=1e-9)
    assert 1 < gain <= (1 + math.sqrt(17)) / 2
