from __future__ import annotations

import torch
from torch import Tensor

from invattn.testing import PeakMemory

FLOAT = 4  # bytes


def test_what_is_alive_counts_once_and_what_was_there_does_not() -> None:
    before = torch.zeros(100)
    with PeakMemory() as memory:
        made = before + 1
        views = (made[:50], made.view(10, 10), before[:50])
        assert memory.live == 100 * FLOAT
        total = (made * 2).sum()
        assert memory.live == 101 * FLOAT
    assert memory.peak == 201 * FLOAT
    del made, views
    assert memory.live == FLOAT
    assert total.shape == ()


def test_what_only_the_graph_holds_counts_until_backward_lets_it_go() -> None:
    x = torch.zeros(100, requires_grad=True)
    with PeakMemory() as memory:
        loss: Tensor = x.exp().sin().sum()  # saves exp(x), twice the same storage, for both derivatives
        assert memory.live == 101 * FLOAT
        loss.backward()
        assert memory.live == 101 * FLOAT  # the loss and the gradient
    assert 201 * FLOAT <= memory.peak <= 302 * FLOAT


def test_results_written_in_place_and_several_at_once() -> None:
    with PeakMemory() as memory:
        made = torch.zeros(10)
        made.add_(1)
        values, places = torch.sort(made)
        assert memory.live == 10 * FLOAT + 10 * FLOAT + 10 * 8
    assert places.dtype == torch.long
    assert values.shape == (10,)
