"""A proven Lipschitz bound and how it came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invattn.lipschitz.theorems import ROUNDING
from invattn.norms import conversion


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


@dataclass(frozen=True)
class BiLipschitz:
    """lower |x - y|_in <= |f(x) - f(y)|_out <= upper |x - y|_in for all x, y.

    Attributes:
        lower: The lower constant; 1 / lower bounds the Lipschitz constant of the inverse.
        upper: The upper constant.
        norm_in: Name of the norm of inputs.
        norm_out: Name of the norm of outputs.
        steps: What each part contributes, in the order of application, in words.

    References:
        docs/theory.md, "Composition".
    """

    lower: float
    upper: float
    norm_in: str
    norm_out: str
    steps: tuple[str, ...] = ()

    def then(self, following: BiLipschitz, *, tokens: int) -> BiLipschitz:
        """Return the constants of ``following`` after this map.

        Args:
            following: The constants of the next map; where its norm is another one, the change is charged.
            tokens: Number of tokens between the two maps.
        """
        grow = conversion(self.norm_out, following.norm_in, tokens=tokens)
        back = conversion(following.norm_in, self.norm_out, tokens=tokens)
        change: tuple[str, ...] = ()
        if self.norm_out != following.norm_in:
            change = (f"|.|_{{{self.norm_out}}} to |.|_{{{following.norm_in}}}: [{1 / back:.6g}, {grow:.6g}]",)
        return BiLipschitz(
            lower=self.lower / back * following.lower,
            upper=self.upper * grow * following.upper,
            norm_in=self.norm_in,
            norm_out=following.norm_out,
            steps=(*self.steps, *change, *following.steps),
        )

    def inverse(self) -> BiLipschitz:
        """Return the constants of f^{-1}."""
        return BiLipschitz(
            lower=1 / self.upper,
            upper=1 / self.lower,
            norm_in=self.norm_out,
            norm_out=self.norm_in,
            steps=("inverse of:", *self.steps),
        )

    @property
    def derivation(self) -> str:
        """The chain, one part a line."""
        return "\n".join(self.steps)

    def __str__(self) -> str:
        return (
            f"{self.lower:.6g} |x - y|_{{{self.norm_in}}} <= |f(x) - f(y)|_{{{self.norm_out}}} <= "
            f"{self.upper:.6g} |x - y|_{{{self.norm_in}}}"
        )


def isometry(norm: str) -> BiLipschitz:
    """Return the constants of a map that changes no distance in this norm."""
    return BiLipschitz(lower=1.0, upper=1.0, norm_in=norm, norm_out=norm)
