"""What attention refuses."""

from __future__ import annotations

import pytest
import torch

from invattn.functional import Response, attend, get_kernel


def test_an_unknown_normalisation_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"normalisation 'collumn'. Did you mean 'column'\?"):
        Response(get_kernel("exp"), normalize="collumn")


def test_a_logit_bias_needs_logits() -> None:
    tokens = torch.zeros(1, 1, 2, 3)
    with pytest.raises(ValueError, match="'relu' has no logarithm"):
        attend(tokens, tokens, tokens, response=Response(get_kernel("relu")), logit_bias=torch.zeros(1, 2, 2))


def test_long_sequences_use_tiles_by_themselves() -> None:
    """2,100 tokens are past the limit of a dense map; their result is that of the dense formula."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, 2100, width, generator=generator) for width in (2, 2, 3))
    found = attend(query, key, value, response=Response(get_kernel("exp")))
    expected = (query @ key.mT).softmax(dim=-1) @ value
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
