"""Response kernels phi, what turns a score into a non-negative response; and the squash of queries, keys and values.

A positive kernel is given by its logarithm, so that its normalised response is a softmax of
``log phi(score)``: no overflow and no 0/0 at any finite score (docs/theory.md;
the paper's App. D gives up on this for the Gaussian kinds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn._errors import check_name


@dataclass(frozen=True)
class Kernel:
    """A response kernel.

    Attributes:
        name: Its name.
        log_value: log phi for a positive kernel, else None.
        value: phi itself.
        kappa: An upper bound of |(log phi)'|, or None where there is none.
        log_slope: (log phi)'; None where it is 1, or where there is no logarithm.
        log_curvature: (log phi)''; None where it is 0, or where there is no logarithm.
    """

    name: str
    log_value: Callable[[Tensor], Tensor] | None
    value: Callable[[Tensor], Tensor]
    kappa: float | None
    log_slope: Callable[[Tensor], Tensor] | None = None
    log_curvature: Callable[[Tensor], Tensor] | None = None


def log_elu_plus_one(score: Tensor) -> Tensor:
    """log(elu(s) + 1), with derivative in (0, 1] and exactly 1 for s <= 0.

    Args:
        score: Scores of any shape.

    Returns:
        ``log1p(s)`` for s > 0 and ``s`` elsewhere, as (s - r) + log1p(r) with r = relu(s), where s - r is exact and the
        derivative at 0 is 1. (clamp_max(s) + log1p(clamp_min(s)) would have 2 there and break the certificate.)
    """
    positive = F.relu(score)
    return (score - positive) + torch.log1p(positive)


def log_softplus(score: Tensor) -> Tensor:
    """log(softplus(s)), exact to rounding for every finite s.

    Args:
        score: Scores of any shape.

    Returns:
        The logarithm; below -20 (float32) or -40 (float64) it is ``s - exp(s) / 2``, the first two
        terms of its expansion, because softplus underflows there.
    """
    cut = -40.0 if score.dtype == torch.float64 else -20.0
    middle = score.clamp_min(cut)
    exact = torch.log(torch.logaddexp(middle, torch.zeros_like(middle)))
    low = score.clamp_max(cut)
    return torch.where(score > cut, exact, low - low.exp() / 2)


def _elu_plus_one_slope(score: Tensor) -> Tensor:
    return 1 / (1 + F.relu(score))


def _elu_plus_one_curvature(score: Tensor) -> Tensor:
    return torch.where(score > 0, -(1 / (1 + F.relu(score))).square(), 0)


def _softplus_slope(score: Tensor) -> Tensor:
    """sigmoid(s) / softplus(s); below the cut of :func:`log_softplus` the derivative of its expansion."""
    cut = -40.0 if score.dtype == torch.float64 else -20.0
    middle = score.clamp_min(cut)
    exact = torch.sigmoid(middle) / _softplus(middle)
    return torch.where(score > cut, exact, 1 - score.clamp_max(cut).exp() / 2)


def _softplus_curvature(score: Tensor) -> Tensor:
    slope = _softplus_slope(score)
    return slope * (torch.sigmoid(-score) - slope)


def _identity(score: Tensor) -> Tensor:
    return score


def _elu_plus_one(score: Tensor) -> Tensor:
    return F.elu(score) + 1


def _softplus(score: Tensor) -> Tensor:
    return torch.logaddexp(score, torch.zeros_like(score))


_KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("exp", _identity, torch.exp, 1.0),
        Kernel("elu+1", log_elu_plus_one, _elu_plus_one, 1.0, _elu_plus_one_slope, _elu_plus_one_curvature),
        Kernel("softplus", log_softplus, _softplus, 1.0, _softplus_slope, _softplus_curvature),
        Kernel("relu", None, F.relu, None),
        Kernel("elu", None, F.elu, None),
        Kernel("identity", None, _identity, None),
    )
}

KERNELS: tuple[str, ...] = tuple(_KERNELS)


def get_kernel(name: str) -> Kernel:
    """Return the kernel of this name.

    Args:
        name: exp, elu+1, softplus, relu, elu or identity. The last three have no logarithm: relu may
            vanish, elu and identity change sign. They exist to reproduce the paper's and the released forms.

    Raises:
        ValueError: If the name is unknown.
    """
    return _KERNELS[check_name(name, KERNELS, what="response kernel")]


def squash(value: Tensor, *, radius: float = 1.0) -> Tensor:
    """Map vectors into the open ball of the given radius.

    sigma_r(z) = z / sqrt(1 + |z|^2 / r^2). Analytic, |sigma_r(z)| < r, |D sigma_r|^2 + |sigma_r|^2 / r^2 = 1.

    Args:
        value: Vectors along the last axis, any leading shape. Any finite input is safe.
        radius: r > 0, in the units of the value.

    Returns:
        A tensor of the same shape.

    References:
        Lemma 1 of docs/theory.md.
    """
    # Dividing by max(1, |z|_max) first keeps the square finite; the result is the same.
    largest = value.detach().abs().amax(dim=-1, keepdim=True).clamp_min(1.0)
    scaled = value / largest
    inverse = largest.reciprocal()
    return scaled * (inverse.square() + scaled.square().sum(dim=-1, keepdim=True) / radius**2).rsqrt()
