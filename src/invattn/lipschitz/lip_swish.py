"""x sigmoid(b x) / 1.1 with derivatives of two orders in few passes over memory.

In a log-determinant every activation is differentiated twice. From the formula autograd makes some thirty passes of
that; here it is one autograd function for the value, and one for the slope h(b x) with h(u) = (sigmoid(u) + u
sigmoid'(u)) / 1.1. The derivative of f = x sigmoid(b x) by b is (x f' - f) / b.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn.functional._transforms import plain_autograd

DIVISOR = 1.1


def lip_swish(x: Tensor, sharpness: Tensor) -> Tensor:
    """Return x sigmoid(b x) / 1.1.

    Args:
        x: Any shape.
        sharpness: b > 0, a scalar.
    """
    if not plain_autograd():
        return _formula(x, sharpness)
    result: Tensor = _Value.apply(x, sharpness)  # type: ignore[no-untyped-call]
    return result


def lip_swish_slope(x: Tensor, sharpness: Tensor) -> Tensor:
    """Return the derivative by x, (sigmoid(b x) + b x sigmoid'(b x)) / 1.1."""
    u = x * sharpness
    s = torch.sigmoid(u)
    return (1 - s).mul_(u).add_(1).mul_(s).mul_(1 / DIVISOR)


def _formula(x: Tensor, sharpness: Tensor) -> Tensor:
    return F.silu(sharpness * x) * (1 / (DIVISOR * sharpness))


class _Value(torch.autograd.Function):
    """(x, b) to x sigmoid(b x) / 1.1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharpness: Tensor) -> Tensor:
        value = F.silu(x * sharpness, inplace=True).mul_(1 / (DIVISOR * sharpness))
        ctx.save_for_backward(x, sharpness, value)
        return value

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        x, sharpness, value = ctx.saved_tensors
        by_x = incoming * _Slope.apply(x, sharpness)  # type: ignore[no-untyped-call]
        by_sharpness = None
        if ctx.needs_input_grad[1]:
            by_sharpness = ((by_x * x).sum() - (incoming * value).sum()) / sharpness
        return by_x, by_sharpness


class _Slope(torch.autograd.Function):
    """(x, b) to the derivative of the value by x, h(b x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharpness: Tensor) -> Tensor:
        ctx.save_for_backward(x, sharpness)
        return lip_swish_slope(x, sharpness)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:
        x, sharpness = ctx.saved_tensors
        u = x * sharpness
        s = torch.sigmoid(u)
        # h'(u) = s (1 - s) (2 + u (1 - 2 s)) / 1.1
        if torch.is_grad_enabled():  # a third derivative may follow
            by_u = incoming * (s * (1 - s) * (2 + u * (1 - 2 * s)) / DIVISOR)
        else:
            by_u = torch.rsub(s, 0.5).mul_(u).add_(1).mul_(s).mul_(s.neg_().add_(1)).mul_(incoming).mul_(2 / DIVISOR)
        return by_u * sharpness, (by_u * x).sum() if ctx.needs_input_grad[1] else None
