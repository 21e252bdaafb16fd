"""How much a branch stretches distances near a point, by gradient ascent: an estimate from below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn._errors import check_name
from invattn.branches import Branch
from invattn.diagnosis.jacobian import beside, evaluating, push, unit_vectors
from invattn.norms import euclidean_norm


@dataclass(frozen=True)
class Ascent:
    """How far and how long the ascent goes.

    Attributes:
        radius: The points stay within this share of |x|_2 of x (of 1 where x = 0), in the Euclidean norm.
        steps: Ascent steps; 0 looks at x alone.
        rate: Length of a step, as a share of the radius.
        restarts: Random directions at x, of which the most stretched is followed.
    """

    radius: float = 0.1
    steps: int = 12
    rate: float = 0.2
    restarts: int = 4

    def __post_init__(self) -> None:
        if self.radius < 0 or self.steps < 0 or not self.rate > 0 or self.restarts < 1:
            raise ValueError(
                "radius and steps must not be negative, rate must be positive and restarts at least 1; got "
                f"{self.radius}, {self.steps}, {self.rate}, {self.restarts}."
            )


def local_stretch(
    branch: Branch,
    x: Tensor,
    *,
    norm: str = "inf,2",
    ascent: Ascent | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Estimate the largest |J_g(y)| over points y near x, from below.

    Pairs of inputs near the best y are stretched by that ratio, so that it is a lower bound, but for rounding, of the
    Lipschitz constant of g; a ratio of 1 or more disproves that g is a contraction in this norm. At each point, unit
    vectors w and v are improved in turn (w aligned with J v, v with J^T w: the power method for operator norms), and y
    climbs the gradient of <w, J_g(y) v>.

    Args:
        branch: g, in evaluation mode for the time of the call; its weights, buffers and their gradients stay.
        x: Inputs of g with shape (B, ...).
        norm: The norm of inputs and outputs: "inf,2" or "2".
        ascent: How far and how long; None is the default of :class:`Ascent`.
        generator: Where the first vectors come from; None is torch's default generator.

    Returns:
        The largest ratio seen, shape (B,); NaN where g is not finite at x.

    References:
        Boyd 1974, The power method for l^p norms (the improvement in turn).
    """
    branch.check_input(x)
    align = _ALIGN[check_name(norm, list(_ALIGN), what="norm")]
    ascent = Ascent() if ascent is None else ascent
    centre = x.detach()
    size = euclidean_norm(centre)
    radius = ascent.radius * torch.where(size > 0, size, 1)
    point = centre
    with evaluating(branch), torch.enable_grad():
        best, output = _first_output(branch, centre, align, ascent.restarts, generator)
        for _ in range(ascent.steps + 1):
            ratio, output, slope = _climb_once(branch, point, output, align)
            best = torch.maximum(best, ratio)  # NaN stays
            step = ascent.rate * radius / euclidean_norm(slope).clamp_min(torch.finfo(x.dtype).tiny)
            offset = (point - centre + beside(step, slope) * slope.nan_to_num()).detach()
            shrink = (radius / euclidean_norm(offset).clamp_min(torch.finfo(x.dtype).tiny)).clamp(max=1)
            point = centre + beside(shrink, offset) * offset
    return best


def _first_output(
    branch: Branch, x: Tensor, align: _Align, restarts: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return the largest stretch at x of some random directions, shape (B,), and the functional w that sees it."""
    best, output = torch.zeros_like(x.flatten(1)[:, 0]), torch.zeros_like(x)
    for _ in range(restarts):
        direction, _ = align(unit_vectors(x, generator).view_as(x))
        _, seen = align(push(branch, x, direction.flatten(1)).view_as(x))
        ratio, better, _ = _climb_once(branch, x, seen, align)
        chosen = ~(ratio <= best)
        best, output = torch.where(chosen, ratio, best), torch.where(beside(chosen, x), better, output)
    return best, output


_Align = Callable[[Tensor], tuple[Tensor, Tensor]]


def _climb_once(branch: Branch, point: Tensor, output: Tensor, align: _Align) -> tuple[Tensor, Tensor, Tensor]:
    """Return |J^T w| in the dual norm, shape (B,), the better w, and the gradient of <w, J(y) v> at y."""
    leaf = point.detach().requires_grad_()
    probe = output.detach().requires_grad_()
    (pulled,) = torch.autograd.grad(branch(leaf), leaf, probe, create_graph=True)
    direction, _ = align(pulled.detach())
    # <J^T w, v> is linear in w and a function of y: its derivatives are J v and the slope.
    stretched = (pulled * direction).flatten(1).sum(dim=-1)
    pushed, slope = torch.autograd.grad(stretched.sum(), (probe, leaf), allow_unused=True, materialize_grads=True)
    _, better = align(pushed)
    return stretched.detach(), better.detach(), slope.detach()


def _by_token(u: Tensor) -> tuple[Tensor, Tensor]:
    """|.|_{inf,2}: the input direction has length 1 in every token, the output functional looks at one token."""
    channel = 1 if u.dim() == 4 else -1
    lengths = torch.linalg.vector_norm(u, dim=channel, keepdim=True)
    unit = u / torch.where(lengths > 0, lengths, 1)
    longest = lengths.flatten(1).amax(dim=1)
    # Among equals the first one: the functional must look at one token only.
    first = (lengths.flatten(1) == longest[:, None]).int().argmax(dim=1)
    chosen = torch.nn.functional.one_hot(first, lengths[0].numel()).to(u.dtype).view_as(lengths)
    return unit, unit * chosen


def _whole(u: Tensor) -> tuple[Tensor, Tensor]:
    """|.|_2: both are the unit vector along u."""
    length = beside(euclidean_norm(u), u)
    unit = u / torch.where(length > 0, length, 1)
    return unit, unit


_ALIGN: dict[str, _Align] = {"inf,2": _by_token, "2": _whole}
