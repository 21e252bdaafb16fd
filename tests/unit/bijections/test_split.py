"""Split and Reshape: what leaves, what stays, what is proven."""

from __future__ import annotations

import pytest
import torch

from invattn import CertificateError
from invattn.bijections import AffinePrior, Composed, Reshape, ResidualBijection, Split
from invattn.branches import CertifiedConvolution
from invattn.norms import euclidean_norm, token_norm


def convolution(channels: int) -> ResidualBijection:
    torch.manual_seed(1)
    return ResidualBijection(CertifiedConvolution(channels=channels, hidden_channels=4, lipschitz=0.8)).double()


def test_the_leaving_channels_come_first_and_untouched_without_a_prior() -> None:
    split = Split((3, 2, 2), Composed([convolution(2), Reshape((2, 2, 2))])).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    z = split(x)
    assert torch.equal(z[:, :4], x[:, 2].flatten(1))
    assert torch.equal(z[:, 4:], split.rest(x[:, :2]))


def test_a_fresh_prior_is_a_standard_normal_and_a_trained_one_bounded() -> None:
    prior = AffinePrior(kept=2, leaving=1, hidden_channels=3, limit=1.5)
    kept = torch.randn(2, 2, 2, 2)
    mean, log_scale = prior(kept)
    assert not mean.any()
    assert not log_scale.any()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(30 * torch.randn_like(parameter))
    _, log_scale = prior(kept)
    assert log_scale.abs().max() <= 1.5


def test_bounds_of_distances_hold_and_a_learned_prior_has_none() -> None:
    split = Split((4, 3, 3), Composed([convolution(2), Reshape((2, 3, 3))])).double()
    x, y = torch.randn(2, 50, 4, 3, 3, dtype=torch.float64)
    for name, measure in (("2", euclidean_norm), ("inf,2", token_norm)):
        constants = split.bi_lipschitz((4, 3, 3), norm=name)
        before, after = measure(x - y), euclidean_norm(split(x) - split(y))
        assert constants.norm_out == "2"
        assert (after <= constants.upper * before).all()
        assert (after >= constants.lower * before).all()
    learned = Split((4, 3, 3), convolution(2), prior=AffinePrior(kept=2, leaving=2))
    with pytest.raises(CertificateError, match="learned prior"):
        learned.bi_lipschitz((4, 3, 3))


def test_reshape_bounds_hold_in_the_token_norm_and_are_attained() -> None:
    reshape = Reshape((2, 3, 3))
    constants = reshape.bi_lipschitz((2, 3, 3), norm="inf,2")
    assert (constants.lower, constants.upper) == (1.0, 3.0)
    everywhere, once = torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    once[..., 0, 0] = 1
    assert token_norm(reshape(everywhere)) / token_norm(everywhere) == pytest.approx(3.0)
    assert token_norm(reshape(once)) / token_norm(once) == pytest.approx(1.0)


@pytest.mark.parametrize("make", [lambda: Split((1, 2, 2), Composed([])), lambda: Split((4, 2), Composed([]))])
def test_a_split_needs_a_channel_for_each_side(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match="keeps at least one channel"):
        make()


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="same number of entries"):
        Reshape((2, 3), (5,))
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\); got \(6,\)"):
        Reshape((2, 3))(torch.zeros(1, 6))
    split = Split((4, 2, 2), Composed([Reshape((2, 2, 2))]))
    with pytest.raises(ValueError, match=r"must have shape \(4, 2, 2\)"):
        split(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"must have shape \(16,\)"):
        split.inverse(torch.zeros(1, 4, 2, 2))
