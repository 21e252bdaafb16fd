"""The power series of the log-determinant with random probes, cut after some terms or at random."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from invattn._errors import check_name
from invattn.lipschitz.constrained import held_estimates
from invattn.logdet._linearised import Transpose, linearised
from invattn.logdet.base import LogDetEstimate, LogDetEstimator

PROBES = ("rademacher", "gaussian")
"""Distributions of probes, each with E[v v^T] = I."""


@dataclass(frozen=True)
class Shard:
    """One of several equal, consecutive parts of a batch.

    Random numbers that belong to samples are drawn for the whole batch, and each process keeps those of its own
    samples: where all start from the same generator state, a sample gets the same numbers however many processes share
    the batch, and every process leaves its generator in the same state.

    Attributes:
        part: Which part, 0 .. ``parts`` - 1.
        parts: How many.

    Raises:
        ValueError: If ``part`` is not one of them.
    """

    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise ValueError(f"part must be between 0 and parts - 1 = {self.parts - 1}; got {self.part}.")

    def draw(self, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        """Return the rows of this part.

        Args:
            shape: Of this part, samples first: (B, ...).
            draw: Returns random numbers of a shape; asked for those of the whole batch, (``parts`` B, ...).
        """
        size = shape[0]
        return draw((self.parts * size, *shape[1:]))[self.part * size : (self.part + 1) * size]


@dataclass(frozen=True, kw_only=True)
class _ProbedSeries(LogDetEstimator):
    """The mean over probes v of sum_k (-1)^{k+1} v^T J^k v / (k P_k), where P_k is the probability to keep term k.

    The gradient is the Neumann form, w^T dJ v with w = sum_{k<n} (-J^T)^k v / P_{k+1}: the derivative of the series in
    expectation. A probe needs n - 1 first-order products without a graph and one second-order product, in which the
    last term is found too (where no gradient is wanted, n first-order products).

    References:
        Zha et al. 2021, App. E; Behrmann et al. 2019; Chen et al. 2019 (Russian roulette, Neumann gradient).
    """

    probes: int = 1
    probe: str = "rademacher"
    generator: torch.Generator | None = None
    shard: Shard = field(default_factory=Shard)

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes must be at least 1; got {self.probes}.")
        check_name(self.probe, PROBES, what="probe distribution")

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        return () if self.generator is None else (self.generator,)

    @abstractmethod
    def _survivals(self, lipschitz: Callable[[], float | None] | None) -> Callable[[], Sequence[float]]:
        """Return what draws P_1, ..., P_n for each probe; all 1 is the series cut after n terms."""

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        survival, wanted = self._survivals(lipschitz), torch.is_grad_enabled()
        with nullcontext() if wanted else held_estimates(branch), torch.inference_mode(mode=False), torch.enable_grad():
            point = x if wanted and x.requires_grad else x.detach().clone().requires_grad_()
            image, transpose = linearised(branch, point)
            draws = [_one_probe(image, point, transpose, self._draw(x), survival(), wanted) for _ in range(self.probes)]
            value = torch.stack(draws).mean(dim=0)
        if not wanted:
            image, value = image.detach(), value.detach()
        if self.probes < 2:
            return LogDetEstimate(image, value, standard_error=None)
        error: Tensor = torch.stack([draw.detach() for draw in draws]).std(dim=0) / self.probes**0.5
        return LogDetEstimate(image, value, error)

    def _draw(self, x: Tensor) -> Tensor:
        """Return v with the shape and dtype of x, whose samples are one part of a batch."""

        def draw(shape: tuple[int, ...]) -> Tensor:
            if self.probe == "gaussian":
                return torch.randn(shape, dtype=x.dtype, device=x.device, generator=self.generator)
            return torch.randint(0, 2, shape, device=x.device, generator=self.generator)

        drawn = self.shard.draw(tuple(x.shape), draw)
        return drawn if self.probe == "gaussian" else drawn.to(x.dtype) * 2 - 1


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
class PowerSeries(_ProbedSeries):
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

    def __post_init__(self) -> None:
        if self.terms < 1 or self.probes < 1:
            raise ValueError(f"terms and probes must be at least 1; got {self.terms} and {self.probes}.")
        super().__post_init__()

    def _survivals(self, lipschitz: Callable[[], float | None] | None) -> Callable[[], Sequence[float]]:
        return lambda: [1.0] * self.terms

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        """Return d L^{n+1} / ((n+1) (1-L)), which bounds |sum_{k > n} (-1)^{k+1} tr(J^k) / k|."""
        return float(size * lipschitz ** (self.terms + 1) / ((self.terms + 1) * (1 - lipschitz)))


_LEAST = 0.5
_UNKNOWN = 0.9  # a heuristic for branches without a certificate: nothing is proven of them anyway


@dataclass(frozen=True)
class RussianRoulette(_ProbedSeries):
    """log det(I + J) ~ mean over probes of sum_{k<=N} (-1)^{k+1} v^T J^k v / (k P(N >= k)), N random: unbiased.

    N = exact_terms + G with P(G >= j) = p^j, drawn once a probe for the whole batch, so P(N >= k) = p^{k - exact_terms}
    beyond the exact terms. The second moment is finite if p > L^2. The gradient is the Neumann form with the same
    weights, unbiased too.

    Attributes:
        exact_terms: Terms that are always computed, at least 1; more of them lower the variance.
        p: Probability of going on after each further term, strictly between 0 and 1; None: max(0.5, L) where L is
            proven (at L = 0.9: 10 terms beyond the exact ones on average), else 0.9.
        probes: Random vectors a sample, each with its own N.
        probe: rademacher or gaussian.
        generator: Where probes and N come from; None is torch's default generator, so two calls differ.
        shard: Which part of a batch over several processes the samples are; N is the same for all parts.

    References:
        Chen et al. 2019, Residual Flows; docs/theory.md, "Consequences".
    """

    exact_terms: int = 2
    p: float | None = None

    def __post_init__(self) -> None:
        if self.exact_terms < 1:
            raise ValueError(f"exact_terms must be at least 1; got {self.exact_terms}.")
        if self.p is not None and not 0 < self.p < 1:
            raise ValueError(f"p must lie strictly between 0 and 1; got {self.p}.")
        super().__post_init__()

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return 0.0

    def _survivals(self, lipschitz: Callable[[], float | None] | None) -> Callable[[], Sequence[float]]:
        p = self._continuation(lipschitz)
        return lambda: self._survival(p)

    def _continuation(self, lipschitz: Callable[[], float | None] | None) -> float:
        if self.p is not None:
            return self.p
        bound = None if lipschitz is None else lipschitz()
        return _UNKNOWN if bound is None else max(_LEAST, bound)

    def _survival(self, p: float) -> list[float]:
        """Draw N and return P(N >= k) for k = 1 ... N."""
        kept = [1.0] * self.exact_terms
        device = "cpu" if self.generator is None else self.generator.device
        while float(torch.rand((), generator=self.generator, device=device)) < p:
            kept.append(kept[-1] * p)
        return kept
