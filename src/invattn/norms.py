"""Vector norms of token batches, one number a sample."""

from __future__ import annotations

import torch
from torch import Tensor


def token_norm(tokens: Tensor) -> Tensor:
    """|x|_{inf,2} = max_i |x_i|_2, the norm of the row-normalised certificate.

    A bound on it is a bound on the worst channel of the worst token.

    Args:
        tokens: Tokens with shape (B, N, C).

    Returns:
        A tensor with shape (B,), in the units of the tokens. NaN where a token holds one.
    """
    # Scaling by the largest entry keeps the squares finite at any finite input.
    largest = tokens.abs().amax(dim=(-2, -1), keepdim=True)
    safe = largest.clamp_min(1.0)
    norms: Tensor = torch.linalg.vector_norm(tokens / safe, dim=-1)
    return norms.amax(dim=-1) * safe[..., 0, 0]
