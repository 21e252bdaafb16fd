"""The power series of log det(I + J) along random probes, with the gradient of its Neumann form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from invattn._names import check_name
from invattn.lipschitz import held_estimates
from invattn.logdet.base import LogDetEstimate, standard_error
from invattn.logdet.linearised import Transpose, linearised
from invattn.logdet.shard import Shard

PROBES = ("rademacher", "gaussian")
"""Distributions of probes, each with E[v v^T] = I."""


def check_probes(probes: int, probe: str) -> None:
    """Raise ValueError unless there is at least one probe of a known distribution."""
    if probes < 1:
        raise ValueError(f"probes must be at least 1; got {probes}.")
    check_name(probe, PROBES, what="probe distribution")


def draw_probe(x: Tensor, *, probe: str, generator: torch.Generator | None, shard: Shard) -> Tensor:
    """Return v with the shape and dtype of x, whose samples are the part ``shard`` of a batch."""

    def draw(shape: tuple[int, ...]) -> Tensor:
        if probe == "gaussian":
            return torch.randn(shape, dtype=x.dtype, device=x.device, generator=generator)
        return torch.randint(0, 2, shape, device=x.device, generator=generator)

    drawn = shard.draw(tuple(x.shape), draw)
    return drawn if probe == "gaussian" else drawn.to(x.dtype) * 2 - 1


def probed_series(
    branch: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    probes: int,
    draw: Callable[[Tensor], Tensor],
    survival: Callable[[], Sequence[float]],
) -> LogDetEstimate:
    """Return the mean over probes v of sum_k (-1)^{k+1} v^T J^k v / (k P_k).

    The gradient is the Neumann form, w^T dJ v with w = sum_{k<n} (-J^T)^k v / P_{k+1}: the derivative of the series in
    expectation. A probe needs n - 1 first-order products without a graph and one second-order product, in which the
    last term is found too (where no gradient is wanted, n first-order products).

    Args:
        branch: g, from (B, ...) to (B, ...).
        x: Its input; left as it is.
        probes: How many probes are averaged.
        draw: Returns v for x.
        survival: Returns P_1, ..., P_n of one probe: the probability with which each term is kept. All 1: the
            series cut after n terms.

    References:
        Zha et al. 2021, App. E; Behrmann et al. 2019; Chen et al. 2019 (Russian roulette, Neumann gradient).
    """
    wanted = torch.is_grad_enabled()
    with nullcontext() if wanted else held_estimates(branch), torch.inference_mode(mode=False), torch.enable_grad():
        point = x if wanted and x.requires_grad else x.detach().clone().requires_grad_()
        image, transpose = linearised(branch, point)
        draws = [_one_probe(image, point, transpose, draw(x), survival(), wanted) for _ in range(probes)]
        value = torch.stack(draws).mean(dim=0)
    if not wanted:
        image, value = image.detach(), value.detach()
    return LogDetEstimate(image, value, standard_error(draws))


def _one_probe(
    image: Tensor, point: Tensor, transpose: Transpose, probe: Tensor, survival: Sequence[float], wanted: bool
) -> Tensor:
    """Return the series of one probe, shape (B,), with the gradient of the Neumann form where it is wanted.

    With t_k = (-1)^{k+1} v^T J^k v / P_k the value is sum_k t_k / k, and w^T J v of the Neumann form is sum_k t_k. So
    the last product is that with w, and t_n is what it has beyond the terms before.
    """
    value = total = probe.new_zeros(probe.shape[0])
    vector, series = probe, probe / survival[0]
    for k, kept in enumerate(survival[:-1], start=1):
        vector = transpose(vector)
        term = (-1) ** (k + 1) / kept * _inner(vector, probe)
        value, total = value + term / k, total + term
        series = series + (-1) ** k / survival[k] * vector
    if not wanted:
        return value + (_inner(transpose(series), probe) - total) / len(survival)
    (back,) = torch.autograd.grad(image, point, series, create_graph=True)
    surrogate = _inner(back, probe)
    value = value + (surrogate - total) / len(survival)
    return surrogate + (value - surrogate).detach()


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).flatten(1).sum(dim=1)
