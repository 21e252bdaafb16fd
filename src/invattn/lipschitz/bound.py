"""A proven Lipschitz bound and how it came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invattn.lipschitz.theorem_r import ROUNDING


@dataclass(frozen=True)
class LipschitzBound:
    """An upper bound of the Lipschitz constant of a branch, proven for every input.

    Attributes:
        value: The bound.
        norm: The norm it holds in: "inf,2" is max over tokens of the channel norm, "2" the Euclidean one.
        derivation: A readable chain of the factors.
        factors: Every number the chain uses, by name.
    """

    value: float
    norm: str
    derivation: str
    factors: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"Lip <= {self.value:.6g} in |.|_{{{self.norm}}}: {self.derivation}"


@dataclass(frozen=True)
class Factor:
    """What one layer contributes to a product.

    Attributes:
        name: Its name among the factors of the bound.
        symbol: Its name in the derivation.
        value: A proven bound of its Lipschitz constant.
        method: How that was bounded, in words, where there is more than one way.
    """

    name: str
    symbol: str
    value: float
    method: str = ""


def product_bound(factors: Sequence[Factor], *, norm: str) -> LipschitzBound:
    """Return the product of the constants of layers applied one after another, with the rounding margin.

    Args:
        factors: The layers, in the order in which the derivation names them.
        norm: The norm that every one of them is stated in.
    """
    symbols = " ".join(factor.symbol for factor in factors)
    numbers = " * ".join(f"{factor.value:.6g}" for factor in factors)
    methods = "".join(f"; {factor.symbol}: {factor.method}" for factor in factors if factor.method)
    return LipschitzBound(
        value=(1 + ROUNDING) * math.prod(factor.value for factor in factors),
        norm=norm,
        derivation=f"{symbols} = {numbers}, rounding margin {ROUNDING:g}{methods}",
        factors={factor.name: factor.value for factor in factors} | {"rounding": 1 + ROUNDING},
    )


def held_scale(product: Tensor, *, lipschitz: float) -> Tensor:
    """Return min(1, c / product), what the last layer is multiplied with to hold the product of all layers at c.

    Args:
        product: The bound without margin, a float64 scalar.
        lipschitz: c.

    Returns:
        A float64 scalar, short of c by two rounding margins, so that the cast of scale and weight cannot exceed c.
    """
    bound = (1 + 2 * ROUNDING) * product
    return torch.clamp(lipschitz / bound.clamp_min(torch.finfo(bound.dtype).eps), max=1.0)
