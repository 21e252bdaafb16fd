"""The controls and the tokenwise log-determinant obey the laws of branches and estimators."""

from __future__ import annotations

import pytest
import torch

from invattn.branches import Branch, CertifiedMLP, CertifiedPointwise, CertifiedPooling
from invattn.logdet import TokenwiseExact
from invattn.testing import check_branch, check_log_det_estimator, dense_jacobian

from .registry import CHANNELS, random_tokens, randomise, seeded

SEPARATE = {
    "mlp": lambda: CertifiedMLP(channels=CHANNELS, hidden_channels=(7, 5), activation="tanh"),
    "pointwise": lambda: CertifiedPointwise(channels=CHANNELS),
    "two_channels": lambda: CertifiedMLP(channels=2, hidden_channels=(6,)),
}


def make(branch: Branch) -> Branch:
    randomise(branch.double(), 3)
    return branch.eval()


@pytest.mark.parametrize("tokens", [1, 3])
def test_pooling(tokens: int) -> None:
    branch = make(CertifiedPooling(channels=CHANNELS))
    x = random_tokens(2, tokens)
    check_branch(branch, x, generator=seeded(0))
    assert branch.lipschitz_bound().value <= 0.9
    assert torch.equal(branch.attention_weights(x), x.new_full((2, 1, tokens, tokens), 1 / tokens))


def test_pooling_is_the_mean_of_the_squashed_values_of_all_tokens() -> None:
    branch = make(CertifiedPooling(channels=CHANNELS))
    assert isinstance(branch, CertifiedPooling)
    x = random_tokens(1, 3)
    norms = [torch.linalg.svdvals(layer.weight.detach())[0] for layer in (branch.value, branch.output)]
    scale = min(1.0, 0.9 / (norms[0] * norms[1]).item())
    values = [branch.value.weight @ token + branch.value.bias for token in x[0]]
    mean = sum(value / (1 + value.square().sum()).sqrt() for value in values) / 3
    expected = scale * branch.output.weight @ mean + branch.output.bias
    torch.testing.assert_close(branch(x)[0], expected.expand(3, CHANNELS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SEPARATE)
def test_tokenwise_equals_the_dense_log_determinant(name: str) -> None:
    branch = make(SEPARATE[name]())
    assert not branch.mixes_tokens
    x = random_tokens(3)[..., : branch.channels].clone()
    check_log_det_estimator(TokenwiseExact(), branch, x, tolerance=1e-10)


@pytest.mark.parametrize("name", SEPARATE)
def test_a_branch_that_does_not_mix_has_a_block_diagonal_jacobian(name: str) -> None:
    branch = make(SEPARATE[name]())
    x = random_tokens(1)[..., : branch.channels].clone()
    channels, tokens = branch.channels, x.shape[1]
    blocks = dense_jacobian(branch, x).view(tokens, channels, tokens, channels)
    apart = ~torch.eye(tokens, dtype=torch.bool)
    assert not blocks.movedim(2, 1)[apart].any()


def test_tokenwise_of_vectors() -> None:
    branch = make(SEPARATE["two_channels"]())
    x = random_tokens(4)[:, 0, :2].clone()
    _, value = TokenwiseExact()(branch, x)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: branch(v[None])[0]))(x)
    torch.testing.assert_close(value, torch.linalg.slogdet(torch.eye(2).double() + jacobian).logabsdet)
    assert TokenwiseExact().truncation_bound(8, 0.9) == 0.0
