"""At scores where exp overflows and underflows the weights still equal the printed formula, in 60 decimal digits.

All tokens and maps are small binary fractions, so the scores are exact and only the weights are under test.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from invattn import invertible_attention
from invattn.bijections import Bijection
from invattn.functional import Response, get_kernel, response_weights
from invattn.recipes import Paper, Recipe, Released, ReleasedGenerative, Unconstrained

DIGITS = 60


def _exp(score: Decimal) -> Decimal:
    return score.exp()


def _elu_plus_one(score: Decimal) -> Decimal:
    return score + 1 if score > 0 else score.exp()


def _softplus(score: Decimal) -> Decimal:
    """log(1 + e^s); below -100 the series of the logarithm, whose third term is under 10^-80 of the first."""
    small = score.exp() if score < -100 else Decimal(0)
    return small - small * small / 2 if score < -100 else (1 + score.exp()).ln()


PHI: dict[str, Callable[[Decimal], Decimal]] = {"exp": _exp, "elu+1": _elu_plus_one, "softplus": _softplus}


def exact_weights(scores: Tensor, phi: str, axis: str, total: float) -> Tensor:
    """r_ij / sum r in 60 digits, the sum over i (first), j (second) or both."""
    n = scores.shape[0]
    with localcontext(prec=DIGITS, Emax=10**15, Emin=-(10**15)):
        r = [[PHI[phi](Decimal(float(scores[i, j]))) for j in range(n)] for i in range(n)]
        result = []
        for i in range(n):
            row = []
            for j in range(n):
                first, second = sum(r[k][j] for k in range(n)), sum(r[i][k] for k in range(n))
                both = sum(sum(line) for line in r)
                row.append(total * float(r[i][j] / {"first": first, "second": second, "both": both}[axis]))
            result.append(row)
    return torch.tensor(result, dtype=torch.float64)


# Scores around +-90,000 and around 0 that differ by fractions: exp overflows, and the differences still matter.
TOKENS = torch.tensor([[300, 0.5], [300, -1], [-300, 0.25], [300, 1], [0, 0], [-300, -0.5]], dtype=torch.float64)


def identity_block(kind: str, recipe: Recipe, sign: float) -> Bijection:
    """A block whose maps are exact: q = x / 2, k = sign x / 2, and scores (q_0 + k_0) / 2 for concatenation."""
    block = invertible_attention(2, kind=kind, recipe=recipe, key_channels=2, layout="tokens").double()
    state = {name: torch.zeros_like(tensor) for name, tensor in block.state_dict().items()}
    exact = {"query": torch.eye(2) / 2, "key": sign * torch.eye(2) / 2, "mix.0": torch.tensor([[0.5, 0, 0.5, 0]])}
    for name, weight in exact.items():
        if f"g.score.{name}.weight" in state:
            state[f"g.score.{name}.weight"] = weight.double()
    block.load_state_dict(state)  # the stored vectors are 0, so that Eq. 4 leaves every weight alone
    return block.eval()


def exact_scores(kind: str, sign: float) -> Tensor:
    if kind == "gaussian":
        return TOKENS @ TOKENS.T
    if kind == "concatenation":
        return (TOKENS[:, :1] + sign * TOKENS[:, 0]) / 4
    return sign * (TOKENS @ TOKENS.T) / 4


CASES: list[tuple[str, Recipe, str, str, float]] = [
    *((kind, Paper(), "exp", "first", 1.0) for kind in ("gaussian", "embedded_gaussian")),
    *((kind, Paper(), "elu+1", "first", 1.0) for kind in ("dot_product", "concatenation")),
    *((kind, Paper(phi="softplus"), "softplus", "first", 1.0) for kind in ("dot_product", "concatenation")),
    *((kind, Paper(normalize="row"), "exp", "second", 1.0) for kind in ("gaussian", "embedded_gaussian")),
    *((kind, Paper(normalize="total"), "exp", "both", 1.0) for kind in ("gaussian", "embedded_gaussian")),
    ("dot_product", Paper(phi="softplus", normalize="total", column_sum=0.5), "softplus", "both", 0.5),
    *((kind, Released(), "exp", "first", 1 / 1.5) for kind in ("gaussian", "embedded_gaussian")),
    *((kind, ReleasedGenerative(), "exp", "both", 1 / 1.5) for kind in ("gaussian", "embedded_gaussian")),
    *((kind, Released(phi="elu+1"), "elu+1", "first", 1 / 1.5) for kind in ("dot_product", "concatenation")),
    *((kind, Unconstrained(), "exp", "second", 1.0) for kind in ("gaussian", "embedded_gaussian")),
]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("kind", "recipe", "phi", "axis", "total"), CASES, ids=str)
def test_weights_at_extreme_scores(kind: str, recipe: Recipe, phi: str, axis: str, total: float, sign: float) -> None:
    block = identity_block(kind, recipe, sign)
    weights = block.branch.attention_weights(TOKENS[None])[0, 0].detach()
    expected = exact_weights(exact_scores(kind, sign), phi, axis, total)
    if recipe.name.startswith("released"):
        expected = expected.T  # out_j = sum_i V_i E_ij
    assert float((weights - expected).abs().max()) <= 1e-12
    nonzero = expected > 1e-300
    assert torch.allclose(weights[nonzero], expected[nonzero], rtol=1e-12, atol=0)  # tiny weights are right as well


@pytest.mark.parametrize("normalize", ["row", "column", "total"])
@pytest.mark.parametrize("phi", ["exp", "elu+1", "softplus"])
@pytest.mark.parametrize("offset", [-(2.0**40), -5000.0, -45.0, -21.0, 0.0, 30.0, 5000.0, 2.0**40])
def test_additive_scores_of_any_size(phi: str, normalize: str, offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randint(-8, 8, (1, 1, 5, 1), generator=generator).double() + offset
    key = torch.randint(-8, 8, (1, 1, 5, 1), generator=generator).double()
    response = Response(get_kernel(phi), normalize=normalize, additive=True)
    weights = response_weights(query, key, response=response)[0, 0]
    scores = query[0, 0] + key[0, 0].T
    expected = exact_weights(scores, phi, {"row": "second", "column": "first", "total": "both"}[normalize], 1.0)
    assert float((weights - expected).abs().max()) <= 1e-12


@pytest.mark.parametrize("options", [{}, {"normalize": "total"}], ids=str)
@pytest.mark.parametrize("phi", ["elu", "relu"])
def test_kernels_without_logarithm_at_extreme_scores(phi: str, options: dict[str, Any]) -> None:
    """elu and relu grow linearly: nothing overflows, and the printed quotient is what is returned."""
    weights = identity_block("dot_product", Released(phi=phi, **options), 1.0).branch.attention_weights(TOKENS[None])
    scores = exact_scores("dot_product", 1.0)
    r = torch.where(scores > 0, scores, torch.expm1(scores) if phi == "elu" else 0.0)
    norm = r.sum() if options else r.sum(dim=0, keepdim=True)
    expected = torch.where(norm == 0, 0.0, r / norm).T / 1.5
    assert torch.allclose(weights[0, 0], expected, rtol=1e-12, atol=1e-12)
