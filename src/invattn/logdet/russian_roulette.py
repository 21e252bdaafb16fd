"""The power series with a random number of terms: no bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.logdet.base import WHOLE, LogDetEstimate, LogDetEstimator, Shard
from invattn.logdet.power_series import check_probes, draw_probe, probed_series

_LEAST = 0.5
_UNKNOWN = 0.9  # a heuristic for branches without a certificate: nothing is proven of them anyway


@dataclass(frozen=True)
class RussianRoulette(LogDetEstimator):
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
    probes: int = 1
    probe: str = "rademacher"
    generator: torch.Generator | None = None
    shard: Shard = WHOLE

    def __post_init__(self) -> None:
        if self.exact_terms < 1:
            raise ValueError(f"exact_terms must be at least 1; got {self.exact_terms}.")
        if self.p is not None and not 0 < self.p < 1:
            raise ValueError(f"p must lie strictly between 0 and 1; got {self.p}.")
        check_probes(self.probes, self.probe)

    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        p = self._continuation(lipschitz)
        return probed_series(
            branch,
            x,
            probes=self.probes,
            draw=lambda like: draw_probe(like, probe=self.probe, generator=self.generator, shard=self.shard),
            survival=lambda: self._survival(p),
        )

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        return () if self.generator is None else (self.generator,)

    def truncation_bound(self, size: int, lipschitz: float) -> float:
        return 0.0

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
