"""Torch's fused kernels for processors: what is done around them leaves the numbers as they are."""

from __future__ import annotations

import pytest
import torch

from invattn.functional.fused import Flash, _parts, _quick_width


@pytest.mark.parametrize("rows", [1024, 1023, 1500])
@pytest.mark.parametrize("parts", [2, 3])
def test_gradients_of_queries_cut_into_parts(monkeypatch: pytest.MonkeyPatch, rows: int, parts: int) -> None:
    """Each part on a thread; the last one is filled up with rows that must add nothing."""
    generator = torch.Generator().manual_seed(0)
    query, incoming = (torch.randn(2, 2, rows, width, generator=generator).double() for width in (3, 5))
    key, value = (torch.randn(2, 2, 40, width, generator=generator).double() for width in (3, 5))
    flash = Flash()
    found = flash.forward(query, key, value, kernel="exp", causal=False)

    def gradients(number: int) -> tuple[torch.Tensor, ...]:
        monkeypatch.setattr("invattn.functional.fused._parts", lambda _: number)
        return flash.backward(incoming, (query, key, value), found, kernel="exp", causal=False)

    for one, other in zip(gradients(parts), gradients(1), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_queries_are_cut_where_threads_would_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    parts = {(batch, heads, rows): _parts(torch.empty(batch, heads, rows, 1)) for batch, heads, rows in SHAPES}
    assert parts == {(1, 1, 9701): 8, (2, 2, 9701): 2, (64, 1, 256): 1, (1, 1, 1100): 2, (1, 1, 256): 1}


SHAPES = [(1, 1, 9701), (2, 2, 9701), (64, 1, 256), (1, 1, 1100), (1, 1, 256)]


def test_narrow_factors_are_filled_up_where_that_is_quicker() -> None:
    widths = {width: _quick_width(width, rows=1000) for width in (3, 12, 16, 20, 28, 30, 44, 48)}
    assert widths == {3: 16, 12: 16, 16: 16, 20: 20, 28: 32, 30: 32, 44: 48, 48: 48}
    assert _quick_width(12, rows=256) == 12
