"""The algebraic squash, the 1-Lipschitz map onto an open ball."""

from __future__ import annotations

from torch import Tensor


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
    inverse = 1 / largest
    return scaled * (inverse.square() + scaled.square().sum(dim=-1, keepdim=True) / radius**2).rsqrt()
