"""max_i |x_i|_2."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from invattn.norms import token_norm


@given(
    st.lists(
        st.lists(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2), min_size=3, max_size=3), min_size=1, max_size=3
    )
)
def test_it_is_the_loop(samples: list[list[list[float]]]) -> None:
    expected = [max(math.hypot(*token) for token in sample) for sample in samples]
    found = token_norm(torch.tensor(samples, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-150)


def test_no_finite_input_overflows() -> None:
    for dtype in (torch.float32, torch.float64):
        size = 0.25 * torch.finfo(dtype).max
        found = token_norm(torch.full((2, 3, 4), size, dtype=dtype))
        torch.testing.assert_close(found, torch.full((2,), 2 * size, dtype=dtype))


def test_what_is_not_finite_is_seen_in_its_own_sample() -> None:
    for damage in (torch.nan, torch.inf, -torch.inf):
        tokens = torch.ones(3, 2, 2)
        tokens[1, 0, 1] = damage
        assert token_norm(tokens).isfinite().tolist() == [True, False, True]


def test_the_layout_in_memory_does_not_matter() -> None:
    image = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    tokens = image.flatten(2).mT
    assert not tokens.is_contiguous()
    assert torch.equal(token_norm(image), token_norm(tokens.contiguous()))
    assert torch.equal(token_norm(tokens), token_norm(tokens.contiguous()))
