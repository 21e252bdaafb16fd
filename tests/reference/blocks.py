"""Read the maps of a block out of its state_dict, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .formulas import Affine, Response, Vector, constrained

CHANNELS, KEY_CHANNELS, TOKENS = 8, 3, 5
EXPONENTIAL = ("gaussian", "embedded_gaussian")


def random_tokens(seed: int, *, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, TOKENS, CHANNELS, dtype=torch.float64, generator=generator)


def randomise(block: torch.nn.Module, seed: int) -> None:
    """Draw every parameter anew, large enough for the constraints to bind."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))


class StoredMaps:
    """The maps of a block's branch, from its state_dict alone.

    Args:
        state: The state_dict of a block in token layout.
        heads: H.
        kind: The attention kind.
    """

    def __init__(self, state: dict[str, Tensor], *, heads: int, kind: str) -> None:
        self._state = {name.removeprefix("g."): tensor.tolist() for name, tensor in state.items()}
        self._heads = heads
        self._kind = kind

    def affine(self, name: str, *, coefficient: float | None) -> Affine:
        """The map of this name, constrained by Eq. 4 where a coefficient is given."""
        weight = self._state[f"{name}.weight"]
        if coefficient is not None:
            weight = constrained(weight, self._state[f"{name}.left"], self._state[f"{name}.right"], coefficient)
        return Affine(weight, self._state.get(f"{name}.bias"))

    def tanh_gate(self) -> Callable[[Vector], Vector]:
        (gamma,) = self._state["output.gamma"]
        return lambda row: [math.tanh(gamma) * entry for entry in row]

    def responses(self, phi: str, *, coefficient: float | None) -> list[Response]:
        """One response a head."""
        if self._kind == "gaussian":
            return [Response("gaussian", phi)] * self._heads
        first = self._per_head(self.affine("score.query", coefficient=coefficient))
        second = self._per_head(self.affine("score.key", coefficient=coefficient))
        third: list[Affine | None] = [None] * self._heads
        if self._kind == "concatenation":
            third = [self.affine(f"score.mix.{h}", coefficient=coefficient) for h in range(self._heads)]
        return [Response(self._kind, phi, *maps) for maps in zip(first, second, third, strict=True)]

    def _per_head(self, whole: Affine) -> list[Affine]:
        assert whole.bias is not None
        rows = [slice(h * KEY_CHANNELS, (h + 1) * KEY_CHANNELS) for h in range(self._heads)]
        return [Affine(whole.weight[r], whole.bias[r]) for r in rows]


def assert_equal(result: Tensor, reference: list[list[Vector]]) -> None:
    """Equal to 1e-12 of the largest entry: float64 rounding over sums of at most a few hundred terms."""
    expected = torch.tensor(reference, dtype=torch.float64)
    assert result.dtype == torch.float64
    assert result.shape == expected.shape
    assert float((result.detach() - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))
