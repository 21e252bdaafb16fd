"""Vector norms of batches, one number a sample, and what changing from one to another costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invattn._errors import check_name


def token_norm(x: Tensor) -> Tensor:
    """|x|_{inf,2} = max_i |x_i|_2, the norm of the row-normalised certificate.

    A bound on it is a bound on the worst channel of the worst token.

    Args:
        x: Tokens with shape (B, N, C), images with shape (B, C, H, W), or single tokens with shape (B, C).

    Returns:
        A tensor with shape (B,), in the units of x. NaN where a token holds one.
    """
    norms, safe = _norms_of_tokens(x)
    return norms.flatten(1).amax(dim=1) * safe if norms.dim() > 1 else norms * safe


def euclidean_norm(x: Tensor) -> Tensor:
    """|x|_2, the norm of the certificates of convolutions.

    Args:
        x: Samples of any shape, (B, ...).

    Returns:
        A tensor with shape (B,), in the units of x. NaN where a sample holds one.
    """
    entries = x.flatten(1)
    safe = entries.abs().amax(dim=1).clamp_min(1.0)
    norms: Tensor = torch.linalg.vector_norm(entries / safe[:, None], dim=-1)
    return norms * safe


def token_sum_norm(x: Tensor) -> Tensor:
    """|x|_{1,2} = sum_i |x_i|_2, the dual of :func:`token_norm`: |<x, y>| <= |x|_{1,2} |y|_{inf,2}.

    Args:
        x: As in :func:`token_norm`.

    Returns:
        A tensor with shape (B,), in the units of x. NaN where a token holds one.
    """
    norms, safe = _norms_of_tokens(x)
    return norms.flatten(1).sum(dim=1) * safe if norms.dim() > 1 else norms * safe


NORMS: dict[str, Callable[[Tensor], Tensor]] = {"inf,2": token_norm, "2": euclidean_norm}
"""The norms that certificates are stated in, by name."""


def get_norm(name: str) -> Callable[[Tensor], Tensor]:
    """Return the norm of this name, a function of batches.

    Raises:
        ValueError: If there is none.
    """
    return NORMS[check_name(name, list(NORMS), what="norm")]


def get_dual_norm(name: str) -> Callable[[Tensor], Tensor]:
    """Return the dual of the norm of this name: where J contracts in one, J^T does by as much in the other.

    Raises:
        ValueError: If there is none.
    """
    return {"inf,2": token_sum_norm, "2": euclidean_norm}[check_name(name, list(NORMS), what="norm")]


def conversion(source: str, target: str, *, tokens: int) -> float:
    """Return the least c with |x|_target <= c |x|_source for all x of this many tokens.

    Args:
        source: Name of a norm.
        target: Name of a norm.
        tokens: N, at least 1.
    """
    get_norm(source)
    get_norm(target)
    return math.sqrt(tokens) if (source, target) == ("inf,2", "2") else 1.0


def count_tokens(shape: Sequence[int]) -> int:
    """Return N for the shape of one sample: (N, C), an image (C, H, W), or a single token (C,).

    Raises:
        ValueError: If the shape has no or more than three axes.
    """
    if len(shape) == 3:
        return shape[1] * shape[2]
    if len(shape) in (1, 2):
        return 1 if len(shape) == 1 else shape[0]
    raise ValueError(f"the shape of a sample is (N, C), (C, H, W) or (C,); got {tuple(shape)}.")


def _norms_of_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return |x_i|_2 / s with shape (B, N), (B,) for single tokens, and the scale s of each sample, shape (B,).

    Scaling by the largest entry keeps the squares finite at any finite input.
    """
    # Norms over a last axis that is not contiguous, as that of an image's tokens, take ten times as long.
    tokens = (x.flatten(2).mT if x.dim() == 4 else x).contiguous()
    safe = tokens.abs().flatten(1).amax(dim=1).clamp_min(1.0)
    beside = safe.reshape([-1] + [1] * (tokens.dim() - 1))
    norms: Tensor = torch.linalg.vector_norm(tokens / beside, dim=-1)
    return norms, safe
