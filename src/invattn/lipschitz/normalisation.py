"""What normalising columns, or the whole map, costs a certificate: both depend on the number of tokens."""

from __future__ import annotations

import math

import torch

from invattn.lipschitz.theorem_r import attention_constant


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
