"""sum_i |x_i|_2, the dual of max_i |x_i|_2."""

from __future__ import annotations

import pytest
import torch

from invattn.norms import NORMS, euclidean_norm, get_dual_norm, token_norm, token_sum_norm


@pytest.mark.parametrize("shape", [(3, 5, 2), (3, 2, 4, 3), (3, 6)], ids=str)
def test_the_duality_holds_and_is_attained(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert ((x * y).flatten(1).sum(dim=1).abs() <= token_sum_norm(x) * token_norm(y)).all()
    channel = -1 if x.dim() < 4 else 1
    best = x / x.norm(dim=channel, keepdim=True)
    torch.testing.assert_close((x * best).flatten(1).sum(dim=1), token_sum_norm(x))
    torch.testing.assert_close(token_norm(best), torch.ones(3, dtype=torch.float64))


def test_every_norm_has_a_dual() -> None:
    assert all(callable(get_dual_norm(name)) for name in NORMS)
    assert get_dual_norm("2") is euclidean_norm
    with pytest.raises(ValueError, match="unknown norm"):
        get_dual_norm("1")


def test_no_finite_input_overflows() -> None:
    torch.testing.assert_close(
        token_sum_norm(torch.full((1, 3, 2), 1e38)), torch.tensor([3 * 2**0.5 * 1e38]).clamp(max=torch.inf)
    )
