"""Walk from one image to another through the base of a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.evaluation.sampling import Samples, invert
from invattn.flows import Flow


@torch.no_grad()
def interpolate(flow: Flow, first: Tensor, second: Tensor, *, steps: int) -> Samples:
    """Invert the flow along great circles between the points of the base that belong to pairs of images.

    A great circle keeps the distance from the origin that normal points have; a straight line leaves it.

    Args:
        flow: The distribution.
        first: Where the walks begin, shape (n, ...).
        second: Where they end, the same shape.
        steps: Points of each walk, both ends counted, at least 2.

    Returns:
        n times ``steps`` samples, walk by walk; ends are the images as the inverse gives them back.
    """
    shares = torch.linspace(0.0, 1.0, steps, dtype=first.dtype, device=first.device)
    walks = great_circles(flow.bijection(first), flow.bijection(second), shares)
    return invert(flow, walks.flatten(0, 1))


def great_circles(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Return sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b.

    Args:
        first: a, shape (n, ...).
        second: b, the same shape.
        shares: t, from 0 to 1, shape (steps,).

    Returns:
        Shape (n, steps, ...); a straight line where a and b are nearly parallel.
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1.0, 1.0)
    angle = cosine.acos()[:, None]
    t = shares[None]
    sine = angle.sin()
    straight = sine < 1e-3
    divisor = torch.where(straight, torch.ones_like(sine), sine)
    weight_a = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / divisor)
    weight_b = torch.where(straight, t, (t * angle).sin() / divisor)
    walks = weight_a[..., None] * a[:, None] + weight_b[..., None] * b[:, None]
    return walks.view(len(first), len(shares), *first.shape[1:])
