"""The token flow: what stands in it, and what its controls can and cannot see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.bijections import ActNorm, ResidualBijection, initialize
from invattn.branches import CertifiedAttention
from invattn.flows import TOKEN_MIXERS, Flow, StandardNormal, token_flow
from invattn.logdet import Exact, TokenwiseExact
from invattn.recipes import Certified, Released


def tokens(seed: int = 0, batch: int = 3, number: int = 5) -> Tensor:
    return 2 * torch.randn(batch, number, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact_flow(attention: str, **options: object) -> Flow:
    made = token_flow(
        2, attention=attention, blocks=2, attention_layers=1, hidden_channels=(6,), log_det_estimator=Exact(), **options
    )  # type: ignore[arg-type]
    initialize(made.double(), tokens(1, batch=64))
    return Flow(made, StandardNormal((5, 2)).double())


@pytest.mark.parametrize("attention", TOKEN_MIXERS)
def test_the_density_does_not_depend_on_the_order_of_the_tokens(attention: str) -> None:
    flow, x = exact_flow(attention), tokens()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(flow.log_prob(x), flow.log_prob(x[:, order]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("attention", TOKEN_MIXERS)
def test_only_attention_and_pooling_let_a_token_see_another(attention: str) -> None:
    made, x = exact_flow(attention).bijection, tokens()
    moved = x.clone()
    moved[:, 0] += 1.0
    seen = not torch.equal(made(x)[:, 1:], made(moved)[:, 1:])
    assert seen == (attention not in ("pointwise", "none"))


@pytest.mark.parametrize("attention", TOKEN_MIXERS)
def test_the_flow_is_certified_round_trips_and_reloads(attention: str) -> None:
    made, x = exact_flow(attention).bijection, tokens()
    assert made.certified
    solution = made.solve(made(x))
    assert bool(solution.converged.all())
    assert solution.error_bound is not None
    assert bool(((solution.value - x).norm(dim=-1).amax(dim=-1) <= solution.error_bound).all())
    other = token_flow(2, attention=attention, blocks=2, attention_layers=1, hidden_channels=(6,)).double()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), made(x))
    assert initialize(other, tokens(5)) == 0
    constants = made.bi_lipschitz((5, 2))
    assert 0 < constants.lower < constants.upper


def test_blocks_are_norm_attention_norm_mlp_and_a_last_norm() -> None:
    made = token_flow(2, blocks=3, attention_layers=1, lipschitz=0.7)
    parts = list(made.bijections)
    assert len(parts) == 13
    assert all(isinstance(part, ActNorm) for part in parts[::2])
    branches = [part.g for part in parts[1::2] if isinstance(part, ResidualBijection)]
    assert [branch.mixes_tokens for branch in branches] == [True, False] * 3
    assert all(branch.lipschitz_bound().value <= 0.7 for branch in branches)
    assert len(list(token_flow(2, attention="none", blocks=3).bijections)) == 7
    deep = token_flow(2, blocks=2, attention_layers=3).bijections
    mixing = [part.g.mixes_tokens for part in deep if isinstance(part, ResidualBijection)]
    assert mixing == [True, True, True, False] * 2


def test_the_log_determinant_is_tokenwise_where_tokens_are_apart_and_channels_few() -> None:
    def names(channels: int, attention: str) -> list[str]:
        made = token_flow(channels, attention=attention, blocks=1, attention_layers=1, log_det_estimator=Exact())
        return [
            type(part.log_det_estimator).__name__ for part in made.bijections if isinstance(part, ResidualBijection)
        ]

    assert names(2, "gaussian") == ["Exact", "TokenwiseExact"]
    assert names(2, "pointwise") == ["TokenwiseExact", "TokenwiseExact"]
    assert names(12, "pointwise") == ["Exact", "Exact"]


def test_attention_starts_against_the_mean_of_similar_tokens() -> None:
    """Two far clusters: a block at the start moves the centres towards the origin and leaves the differences alone."""
    centre = torch.tensor([[3.0, 0.0], [-3.0, 0.0]], dtype=torch.float64).repeat_interleave(4, dim=0)
    inner = 0.1 * torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inner = inner - inner.view(2, 4, 2).mean(dim=1).repeat_interleave(4, dim=0)
    made = token_flow(2, attention="embedded_gaussian", blocks=1, lipschitz=0.99).double()
    block = made.bijections[1]
    assert isinstance(block, ResidualBijection)
    z = block((centre + inner)[None])[0].detach().view(2, 4, 2)
    shrunk = z.mean(dim=1).norm(dim=-1) / 3
    kept = (z - z.mean(dim=1, keepdim=True)).norm() / inner.norm()
    assert bool((shrunk < 0.9).all())
    assert float(kept) > 1.1 * float(shrunk.max())


def test_a_recipe_object_decides_the_form() -> None:
    plain = token_flow(2, recipe=Certified(ratio=1.0), blocks=1).bijections[1]
    assert isinstance(plain, ResidualBijection)
    assert isinstance(plain.g, CertifiedAttention)
    assert plain.g.rule.ratio == 1.0
    assert not torch.equal(plain.g.score.query.weight, plain.g.score.key.weight)  # type: ignore[arg-type,union-attr]
    assert not token_flow(2, recipe=Released(), blocks=1).certified


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"attention of a token flow 'unifrom'. Did you mean 'uniform'\?"):
        token_flow(2, attention="unifrom")
    with pytest.raises(ValueError, match="blocks and attention_layers must be at least 1; got 0 and 3"):
        token_flow(2, blocks=0)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        token_flow(2, attention="uniform", lipschitz=1.0)
    with pytest.raises(ValueError, match="TokenwiseExact is right only where"):
        token_flow(2, log_det_estimator=TokenwiseExact())
