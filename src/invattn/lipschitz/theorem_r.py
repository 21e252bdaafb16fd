"""Theorem R: the Lipschitz constant of row-normalised attention with squashed values."""

from __future__ import annotations

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


def output_constant(output: Tensor, head_constants: Tensor) -> Tensor:
    """Bound W_O concat_h o_h: min(|W_O| sqrt(sum_h F_h^2), sum_h |W_O^h| F_h).

    Args:
        output: W_O with shape (C, H d); head h owns columns h d ... (h + 1) d - 1.
        head_constants: F_h with shape (H,), float64.

    Returns:
        A float64 scalar.

    References:
        Theorem H of docs/theory.md.
    """
    heads = head_constants.shape[0]
    joint: Tensor = spectral_norm(output) * torch.linalg.vector_norm(head_constants)
    if heads == 1:
        return joint
    split = spectral_norm(output.reshape(output.shape[0], heads, -1).transpose(0, 1))
    return torch.minimum(joint, (split * head_constants).sum())
