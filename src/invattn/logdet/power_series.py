"""The truncated power series of the log-determinant with random probes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn._names import check_name
from invattn.lipschitz import held_estimates
from invattn.logdet.base import LogDetEstimator

_PROBES = ("rademacher", "gaussian")


@dataclass(frozen=True)
class PowerSeries(LogDetEstimator):
    """log det(I + J) ~ mean over probes v of sum_{k=1}^{n} (-1)^{k+1} v^T J^k v / k.

    The gradient is the Neumann form, w^T dJ v with w = sum_{k<n} (-J^T)^k v: the derivative of the truncated series
    in expectation. It needs n first-order products without a graph and one second-order product.

    Attributes:
        terms: n. |truncation error| <= N C L^{n+1} / ((n+1) (1-L)) for a certified L.
        probes: Random vectors a sample; the standard deviation falls with their square root.
        probe: rademacher or gaussian.
        generator: Where the probes come from; None is torch's default generator, so two calls differ.

    References:
        Zha et al. 2021, App. E; Behrmann et al. 2019; Chen et al. 2019 (Neumann gradient).
    """

    terms: int = 20
    probes: int = 1
    probe: str = "rademacher"
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.terms < 1 or self.probes < 1:
            raise ValueError(f"terms and probes must be at least 1; got {self.terms} and {self.probes}.")
        check_name(self.probe, _PROBES, what="probe distribution")

    def __call__(self, branch: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        wanted = torch.is_grad_enabled()
        with nullcontext() if wanted else held_estimates(branch), torch.inference_mode(mode=False), torch.enable_grad():
            point = x if wanted and x.requires_grad else x.detach().clone().requires_grad_()
            image = branch(point)
            probes = [self._draw(x) for _ in range(self.probes)]
            total = sum((self._one_probe(image, point, probe, wanted) for probe in probes), x.new_zeros(x.shape[0]))
        return (image, total / self.probes) if wanted else (image.detach(), total.detach() / self.probes)

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        return () if self.generator is None else (self.generator,)

    def _draw(self, x: Tensor) -> Tensor:
        if self.probe == "gaussian":
            return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=self.generator)
        bits = torch.randint(0, 2, x.shape, device=x.device, generator=self.generator)
        return bits.to(x.dtype) * 2 - 1

    def _one_probe(self, image: Tensor, point: Tensor, probe: Tensor, wanted: bool) -> Tensor:
        """Return the series of one probe, shape (B,), with the gradient of the Neumann form where it is wanted."""
        value = probe.new_zeros(probe.shape[0])
        vector, series = probe, probe
        for k in range(1, self.terms + 1):
            (vector,) = torch.autograd.grad(image, point, vector, retain_graph=True)
            value = value + (-1) ** (k + 1) / k * (vector * probe).flatten(1).sum(dim=1)
            if k < self.terms:
                series = series + (-1) ** k * vector
        if not wanted:
            return value
        (back,) = torch.autograd.grad(image, point, series, create_graph=True)
        surrogate = (back * probe).flatten(1).sum(dim=1)
        return surrogate + (value - surrogate).detach()
