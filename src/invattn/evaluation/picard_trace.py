"""Algorithm 1 step by step: residual and error after every step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invattn.bijections import Bijection, to_tokens
from invattn.norms import token_norm


class PicardTrace(NamedTuple):
    """What was measured after 0, 1, ..., N steps.

    Attributes:
        residual: ``|x_n + g(x_n) - z|``, largest over tokens of the channel norm, with shape (N + 1, B).
        error: ``max |x_n - x|`` over all entries, in the units of the input, with shape (N + 1, B).
    """

    residual: Tensor
    error: Tensor


@torch.no_grad()
def picard_trace(block: Bijection, images: Tensor, *, steps: int) -> PicardTrace:
    """Run ``x_{n+1} = z - g(x_n)`` from ``x_0 = z = x + g(x)``, never stopping early.

    Args:
        block: A residual block over images, in eval mode; float64 shows the whole descent.
        images: x with shape (B, C, H, W), in the dtype of the block.
        steps: N.

    Returns:
        Residual and error of every image after every step; values that are not finite stay as they are.

    References:
        Invertible Attention (arXiv 2106.09003), Algorithm 1.
    """
    branch = block.branch
    tokens = to_tokens(images)
    target = tokens + branch(tokens)
    point = target
    residuals, errors = [], []
    for _ in range(steps + 1):
        following = target - branch(point)
        residuals.append(token_norm(point - following))
        errors.append((point - tokens).abs().flatten(1).amax(dim=1))
        point = following
    return PicardTrace(torch.stack(residuals), torch.stack(errors))
