"""The constants of maps whose columns, or whose entries together, sum to 1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from invattn.functional import Response, attend, get_kernel, squash
from invattn.lipschitz import column_constant, exp_spread, total_constant

CHANNELS = 3


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def length(tokens: Tensor) -> Tensor:
    return tokens.square().sum(dim=-1).clamp_min(1e-300).sqrt()


def sum_over_tokens(tokens: Tensor) -> Tensor:
    return length(tokens).sum(dim=-1)


def max_over_tokens(tokens: Tensor) -> Tensor:
    return length(tokens).amax(dim=-1)


def largest(normalize: str, *, scale: float, tokens: int, seed: int) -> float:
    """Climb |g(x) - g(y)| / |x - y| over x, y and orthogonal maps: spectral norms 1, logits of at most ``scale``."""
    size = sum_over_tokens if normalize == "column" else max_over_tokens
    maps = [torch.linalg.qr(normal(CHANNELS, CHANNELS, seed=seed + i))[0] for i in range(3)]
    x = (torch.tensor([0.3, 1.0, 3.0, 10.0])[:, None, None] * normal(4, tokens, CHANNELS, seed=seed)).requires_grad_()
    step = normal(4, tokens, CHANNELS, seed=seed + 9)
    step[:2, 1:] = 0.0  # one token alone is the worst in the sum over tokens
    step = (0.1 * step).requires_grad_()
    response = Response(get_kernel("exp"), normalize=normalize)

    def branch(tokens: Tensor) -> Tensor:
        query, key, value = (squash(tokens @ one.mT)[:, None] for one in maps)
        return attend(scale * query, key, value, response=response)[:, 0]

    optimizer = torch.optim.Adam([x, step], lr=0.05)
    best = 0.0
    for _ in range(40):
        ratio = size(branch(x + step) - branch(x)) / size(step)
        best = max(best, float(ratio.detach().amax()))
        optimizer.zero_grad()
        (-ratio.sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return best


@pytest.mark.parametrize("tokens", [2, 7])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_no_pair_exceeds_the_constants(tokens: int, scale: float) -> None:
    spread = exp_spread(scale)
    columns = column_constant(value_norm=1.0, query=scale, key=scale, tokens=tokens, spread=spread)
    assert 0.05 * columns < largest("column", scale=scale, tokens=tokens, seed=tokens) <= columns
    total = total_constant(value_norm=1.0, response_norm=scale, tokens=tokens, spread=spread)
    assert 0.02 * total < largest("total", scale=scale, tokens=tokens, seed=tokens) <= total


@pytest.mark.parametrize("tokens", [4, 16, 256])
def test_the_growth_of_columns_is_attained(tokens: int) -> None:
    """k_j = v_j = 1, q_1 = 1, the other queries -1, alpha = log(N - 1) / 2: sum_i |dg_i / dq_1| = alpha N / 2."""
    alpha = math.log(tokens - 1) / 2
    query = -torch.ones(tokens, dtype=torch.float64)
    query[0] = 1.0

    def outputs(first: Tensor) -> Tensor:
        queries = torch.cat([first[None], query[1:]])
        keys = torch.ones(tokens, dtype=torch.float64)
        return (alpha * queries[:, None] * keys[None]).softmax(dim=0) @ keys

    slopes = torch.func.jacrev(outputs)(query[0])
    growth = float(slopes.abs().sum())
    assert growth == pytest.approx(alpha * tokens / 2, rel=1e-12)
    stated = column_constant(value_norm=0.0, query=alpha, key=0.0, tokens=tokens, spread=exp_spread(alpha))
    assert stated == pytest.approx(growth, rel=1e-12)
    free = column_constant(value_norm=0.0, query=alpha, key=0.0, tokens=tokens, spread=math.inf)
    assert free == pytest.approx(growth, rel=1e-12)


@pytest.mark.parametrize("tokens", [2, 10, 1000])
def test_the_largest_sum_of_a_row_is_attained(tokens: int) -> None:
    """One query at the largest logit to all keys, the others at the smallest: a row sum of beta / (beta + N - 1)."""
    logits = -torch.ones(tokens, tokens, dtype=torch.float64)
    logits[0] = 1.0
    weights = logits.flatten().softmax(0).view_as(logits)
    stated = total_constant(value_norm=1.0, response_norm=0.0, tokens=tokens, spread=exp_spread(1.0))
    assert float(weights[0].sum()) == pytest.approx(stated, rel=1e-12)


def test_one_token_is_the_value_alone() -> None:
    assert column_constant(value_norm=2.0, query=1.0, key=0.0, tokens=1, spread=1.0) == pytest.approx(2.5)
    assert total_constant(value_norm=2.0, response_norm=0.0, tokens=1, spread=math.inf) == 2.0
