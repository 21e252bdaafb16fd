"""A proven Lipschitz bound and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field


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
