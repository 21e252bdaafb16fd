"""Theorem 1 of the paper: the Lipschitz constant of a product of a response map and a feature map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from invattn.functional import spectral_norm

ROUNDING = 1e-5
"""Relative margin for rounding: the cast of weights and scales to float32 (docs/theory.md, "Rounding")."""


def attention_constant(value_norm: Tensor, response_norm: Tensor) -> Tensor:
    """Bound one head: F(V, R) = V + R^2 / (4 V) if R <= 2 V, else R.

    Args:
        value_norm: V = |W_V|, any shape.
        response_norm: R, the sensitivity of the logits times the radius of the values, same shape.

    Returns:
        F, same shape; F(0, R) = R.

    References:
        Theorem R of docs/theory.md.
    """
    in_reach = response_norm <= 2 * value_norm
    # One in place of a zero, or of what is not selected: otherwise 0 / 0 would reach the gradient.
    divisor = torch.where(in_reach & (value_norm > 0), value_norm, torch.ones_like(value_norm))
    return torch.where(in_reach, value_norm + response_norm * (response_norm / (4 * divisor)), response_norm)


def output_constant(output: Tensor, head_constants: Tensor, *, norm: Tensor | None = None) -> Tensor:
    """Bound W_O concat_h o_h: min(|W_O| sqrt(sum_h F_h^2), sum_h |W_O^h| F_h).

    Args:
        output: W_O with shape (C, H d); head h owns columns h d ... (h + 1) d - 1.
        head_constants: F_h with shape (H,), float64.
        norm: |W_O|, where it is known.

    Returns:
        A float64 scalar.

    References:
        Theorem H of docs/theory.md.
    """
    heads = head_constants.shape[0]
    joint: Tensor = (spectral_norm(output) if norm is None else norm) * torch.linalg.vector_norm(head_constants)
    if heads == 1:
        return joint
    split = spectral_norm(output.reshape(output.shape[0], heads, -1).transpose(0, 1))
    return torch.minimum(joint, (split * head_constants).sum())


def exp_spread(logit: float) -> float:
    """Return beta = max phi / min phi = e^(2 Lambda) of the kernel exp with logits in [-Lambda, Lambda]."""
    return math.exp(2 * logit)


def column_constant(*, value_norm: float, query: float, key: float, tokens: int, spread: float) -> float:
    """Bound one head whose columns sum to 1, in sum_i |x_i|_2.

    sqrt(V^2 + B^2) + A C_N with C_N = N h(beta / (beta + N - 1)), h(R) = 2 R (1 - R) up to R = 1/2, then 1/2: a query
    moves an entry of every column. C_N is N / 2 while logits are free, and that growth is attained.

    Args:
        value_norm: V = |W_V|.
        query: A = kappa alpha |W_Q|.
        key: B = kappa alpha |W_K|.
        tokens: N.
        spread: beta = max phi / min phi, at least 1; infinity where logits are not bounded.

    References:
        docs/theory.md, "Other normalisations".
    """
    largest = min(_largest_share(tokens, spread), 0.5)
    return math.hypot(value_norm, key) + query * tokens * 2 * largest * (1 - largest)


def total_constant(*, value_norm: float, response_norm: float, tokens: int, spread: float) -> float:
    """Bound one head whose whole map sums to 1, in max_i |x_i|_2: beta / (beta + N - 1) F(V, 2 R).

    The first factor bounds the sum of a row, which is 1 / N on average.

    Args:
        value_norm: V = |W_V|.
        response_norm: R = kappa alpha max(|W_Q|, |W_K|).
        tokens: N.
        spread: beta, as in :func:`column_constant`.

    References:
        docs/theory.md, "Other normalisations".
    """
    pair = (torch.tensor(number, dtype=torch.float64) for number in (value_norm, 2 * response_norm))
    return _largest_share(tokens, spread) * float(attention_constant(*pair))


def _largest_share(tokens: int, spread: float) -> float:
    """Return the largest share of one among N summands within a factor of beta."""
    return 1.0 if math.isinf(spread) else spread / (spread + tokens - 1)


@overload
def theorem_1(mu_r: float, c_f: float, mu_f: float, c_r: float) -> float: ...


@overload
def theorem_1(mu_r: float, c_f: Tensor, mu_f: float, c_r: Tensor) -> Tensor: ...


def theorem_1(mu_r: float, c_f: float | Tensor, mu_f: float, c_r: float | Tensor) -> float | Tensor:
    """Bound the Lipschitz constant of A(x) = R(x) F(x): mu_R c_F + mu_F c_R.

    All four numbers are in one sub-multiplicative norm. Numbers of different norms must not be mixed, and in the
    norms of the paper some of them grow with the number of tokens (docs/theory.md, "The paper's Theorem 1").

    Args:
        mu_r: A bound of |R(x)| (condition 3).
        c_f: The Lipschitz constant of F (condition 1); a tensor where it is to be differentiated.
        mu_f: A bound of |F(x)| (condition 4); there is none for a linear F on a whole space.
        c_r: The Lipschitz constant of R (condition 2); a tensor like c_f.

    Returns:
        The constant. Tensors are not checked: that would cut a traced forward in two.

    Raises:
        ValueError: If a number is negative or not finite: then a condition of the theorem does not hold.

    References:
        Zha et al. 2021, Theorem 1 (Sec. 2.3.1), Theorem 2.3 (App. A.2), App. A.3.

    Example:
        >>> from invattn.lipschitz import theorem_1
        >>> theorem_1(1.0, 0.9, 2.0, 0.5)
        1.9
    """
    for name, number in (("mu_r", mu_r), ("c_f", c_f), ("mu_f", mu_f), ("c_r", c_r)):
        if not isinstance(number, Tensor) and not 0 <= number < math.inf:
            raise ValueError(
                f"{name} must be finite and not negative; got {number}. Theorem 1 needs all four conditions: bound the "
                "map that has no such constant first, for example by squash."
            )
    return mu_r * c_f + mu_f * c_r


@dataclass(frozen=True)
class Conditions:
    """Constants with which conditions 1-4 hold for one head of squashed attention, in one norm.

    The head is P(x) V(x): values sigma(W_V x_j + b_V) of length below 1, responses phi(alpha s_ij), normalised.
    Its score is itself a product of bounded maps, so Theorem 1 gives |ds_ij| <= |W_Q| + |W_K|, and the logits log phi
    change by at most ``logits`` = kappa alpha (|W_Q| + |W_K|) where every token moves by at most 1.

    Attributes:
        mu_r: A bound of the response map.
        c_f: The Lipschitz constant of the values.
        mu_f: A bound of the values.
        c_r: The Lipschitz constant of the response map.
        norm: The norm of all four, in words.

    References:
        docs/theory.md, "The paper's Theorem 1", for the proofs.
    """

    mu_r: float
    c_f: float
    mu_f: float
    c_r: float
    norm: str

    @classmethod
    def by_rows(cls, *, value_norm: float, logits: float) -> Conditions:
        """Rows sum to 1, max_i |x_i|_2: the one reading without the number of tokens."""
        return cls(1.0, value_norm, 1.0, logits, "max over tokens")

    @classmethod
    def by_columns(cls, *, value_norm: float, logits: float, tokens: int) -> Conditions:
        """Columns sum to 1 as in Sec. 2.4, sum_i |x_i|_2: the values of N tokens together have a length up to N."""
        return cls(1.0, value_norm, float(tokens), logits, "sum over tokens")

    @classmethod
    def frobenius(cls, *, value_norm: float, query: float, key: float, tokens: int) -> Conditions:
        """Rows sum to 1, the Frobenius norm of App. A.3.2: map and values are each up to sqrt(N) long.

        Args:
            value_norm: |W_V|.
            query: kappa alpha |W_Q|, what a query contributes to the logits.
            key: kappa alpha |W_K|.
            tokens: N.
        """
        root = math.sqrt(tokens)
        return cls(root, value_norm, root, query / math.sqrt(2) + root * key / 2, "Frobenius")

    @property
    def constant(self) -> float:
        """mu_R c_F + mu_F c_R."""
        return theorem_1(self.mu_r, self.c_f, self.mu_f, self.c_r)

    def output_constant(self, lipschitz: float) -> float:
        """Return c / (mu_R c_F + mu_F c_R): what W_L may stretch, so that the branch keeps c.

        References:
            Zha et al. 2021, Eq. 5 and 6, with k = 1: nothing is converted from one norm to another.
        """
        return lipschitz / self.constant
