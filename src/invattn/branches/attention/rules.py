"""How a certified branch bounds a head: by Theorem R, or by the paper's Theorem 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.branches.attention.scores import Score
from invattn.lipschitz import attention_constant, theorem_1


class AttentionRule(ABC):
    """A proven constant of one head of row-normalised attention with squashed values, in |.|_{inf,2}.

    V = |W_V| is the Lipschitz constant of the values; their length is below 1. R = kappa alpha sensitivity is that
    of the logits.
    """

    name: str

    @abstractmethod
    def sensitivity(self, score: Score) -> Tensor:
        """Return, per head, how much a score can change under unit changes of the tokens, (H,), float64."""

    @abstractmethod
    def logit_scale(self, value_norm: Tensor, unit_response: Tensor) -> Tensor:
        """Return alpha per head from V and from R at alpha = 1, (H,) each, differentiable."""

    @abstractmethod
    def head_constant(self, value_norm: Tensor, response_norm: Tensor) -> Tensor:
        """Return the constant per head from V and R, (H,) each, differentiable."""

    @abstractmethod
    def factors(self, value_norm: float, response_norm: float) -> dict[str, float]:
        """Return what the constant of a head is made of, by name."""

    @abstractmethod
    def describe(self, value_norm: float, response_norm: float, constant: float) -> str:
        """Return the constant of a head and its factors in words."""


@dataclass(frozen=True)
class TheoremR(AttentionRule):
    """F(V, R) = V + R^2 / (4 V) if R <= 2 V, else R, with alpha = ratio V / sensitivity.

    Attributes:
        ratio: R / V, how much of the budget the response takes; 2 is where F(V, R) stops growing faster than R.

    References:
        Theorem R of docs/theory.md.
    """

    ratio: float = 2.0
    name = "Theorem R"

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise ValueError(f"ratio must be positive; got {self.ratio}.")

    def sensitivity(self, score: Score) -> Tensor:
        return score.sensitivity()

    def logit_scale(self, value_norm: Tensor, unit_response: Tensor) -> Tensor:
        return self.ratio * value_norm / unit_response.clamp_min(torch.finfo(value_norm.dtype).eps)

    def head_constant(self, value_norm: Tensor, response_norm: Tensor) -> Tensor:
        return attention_constant(value_norm, response_norm)

    def factors(self, value_norm: float, response_norm: float) -> dict[str, float]:
        return {"V": value_norm, "R": response_norm}

    def describe(self, value_norm: float, response_norm: float, constant: float) -> str:
        return f"F({value_norm:.4g}, {response_norm:.4g}) = {constant:.4g}"


@dataclass(frozen=True)
class Theorem1(AttentionRule):
    """mu_R c_F + mu_F c_R with mu_R = 1, c_F = |W_V|, mu_F = 1 and c_R = kappa (|W_Q| + |W_K|); alpha = 1.

    The score's two paths are added, as Theorem 1 itself does with the product q . k; Theorem R takes the larger.

    References:
        Zha et al. 2021, Theorem 1; docs/theory.md, "The paper's Theorem 1".
    """

    name = "Theorem 1"

    def sensitivity(self, score: Score) -> Tensor:
        query, key = score.paths()
        return query + key

    def logit_scale(self, value_norm: Tensor, unit_response: Tensor) -> Tensor:
        return torch.ones_like(unit_response)

    def head_constant(self, value_norm: Tensor, response_norm: Tensor) -> Tensor:
        return theorem_1(1.0, value_norm, 1.0, response_norm)

    def factors(self, value_norm: float, response_norm: float) -> dict[str, float]:
        return {"mu_R": 1.0, "c_F": value_norm, "mu_F": 1.0, "c_R": response_norm}

    def describe(self, value_norm: float, response_norm: float, constant: float) -> str:
        return f"1 * {value_norm:.4g} + 1 * {response_norm:.4g} = {constant:.4g}"
