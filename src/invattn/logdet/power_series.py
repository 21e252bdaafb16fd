"""The truncated power series of the log-determinant with random probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn._errors import check_name
from invattn.lipschitz import held_estimates
from invattn.logdet.base import WHOLE, LogDetEstimate, LogDetEstimator, Shard, Transpose, linearised, standard_error

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


@dataclass(frozen=True)
class PowerSeries(LogDetEstimator):
    """log det(I + J) ~ mean over probes v of sum_{k=1}^{n} (-1)^{k+1} v^T J^k v / k.

    The value has the bias of the terms that are cut; :class:`RussianRoulette` has none. The gradient is the Neumann
    form, the derivative of the truncated series in expectation: n - 1 first-order products without a graph and one
    second-order product a probe.

    Attributes:
        terms: n. |truncation error| <= N C L^{n+1} / ((n+1) (1-L)) for a certified L.
        probes: Random vectors a sample; the standard deviation falls with their square root.
        probe: rademacher or gaussian.
        generator: Where the probes come from; None is torch's default generator, so two calls differ.
        shard: Which part of a batch over several processes the samples are.

    References:
        Zha et al. 2021, App. E; Behrmann et al. 2019; Chen et al. 2019 (Neumann gradient).
    """

    terms: int = 20
    probes: int = 1
    probe: str = "rademacher"
    generator: torch.Generator | None = None
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        if self.terms < 1 or self.probes < 1:
            raise ValueError(f"terms and probes must be at least 1; got {self.terms} and {self.probes}.")
        check_probes(self.probes, self.probe)

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        return probed_series(branch, x, probes=self.probes, draw=self._draw, survival=lambda: [1.0] * self.terms)

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        """Return d L^{n+1} / ((n+1) (1-L)), which bounds |sum_{k > n} (-1)^{k+1} tr(J^k) / k|."""
        return float(size * lipschitz ** (self.terms + 1) / ((self.terms + 1) * (1 - lipschitz)))

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        return () if self.generator is None else (self.generator,)

    def _draw(self, x: Tensor) -> Tensor:
        return draw_probe(x, probe=self.probe, generator=self.generator, shard=self.shard)
