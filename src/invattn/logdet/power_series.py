"""The truncated power series of the log-determinant with random probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.logdet.base import LogDetEstimate, LogDetEstimator
from invattn.logdet.series import check_probes, draw_probe, probed_series
from invattn.logdet.shard import WHOLE, Shard


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
