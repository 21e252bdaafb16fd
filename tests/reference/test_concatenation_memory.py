"""The concatenation kind is computed from two scalars a token: no tensor of N x N x 2C exists at any time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from invattn import RECIPES, invertible_attention


class LargestResult(TorchDispatchMode):
    """Remembers the most entries any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self.entries = max(self.entries, tensor.numel())
        return result


def _tensors(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors(part)


def test_the_probe_sees_the_concatenated_tensor() -> None:
    """What the released code does is caught: repeat and cat give N x N x 2C entries."""
    q, k = torch.randn(64, 16), torch.randn(64, 16)
    with LargestResult() as probe:
        torch.cat([q[:, None].expand(-1, 64, -1), k[None].expand(64, -1, -1)], dim=-1)
    assert probe.entries == 64 * 64 * 32


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_tensor_is_larger_than_the_map(recipe: str, heads: int) -> None:
    tokens = 64
    block = invertible_attention(
        32, kind="concatenation", recipe=recipe, key_channels=16, num_heads=heads, layout="tokens"
    )
    x = torch.randn(1, tokens, 32)
    with LargestResult() as probe:
        block(x.requires_grad_()).square().sum().backward()
    assert x.grad is not None
    assert probe.entries == heads * tokens * tokens


def test_a_long_sequence_never_holds_the_map() -> None:
    tokens = 2304  # above 2048 the map is built in tiles
    block = invertible_attention(4, kind="concatenation", recipe="released", layout="tokens").eval()
    with LargestResult() as probe, torch.no_grad():
        block(torch.randn(1, tokens, 4))
    assert probe.entries <= 2**18
