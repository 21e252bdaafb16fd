"""Generated points of the plane, alone and in sets, where the density of a point depends on the others."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from invattn.experiments.kit.data.dequantise import LARGEST_BITS, counter_uniform

POINTS, DIMENSIONS = 32, 2
"""Of a set."""

CENTRES = 3
CENTRE_SPREAD, POINT_SPREAD = 2.0, 0.15

_QUADRATURE = 512


class Generated(ABC):
    """Samples of a distribution; number i is a function of the seed and of i alone, whatever the batch and the order.

    Args:
        seed: Decides every sample.

    Attributes:
        event_shape: Of one sample.
        origin: Where the samples come from, in words.
    """

    event_shape: ClassVar[tuple[int, ...]]
    origin: ClassVar[str]

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    @abstractmethod
    def __call__(self, index: Tensor, epoch: int = 0) -> Tensor:
        """Return float32 samples with shape (B, *event) of their numbers, shape (B,), at least 0, in any epoch."""

    @classmethod
    @abstractmethod
    def references(cls, test: Tensor) -> dict[str, float]:
        """Return -log p(x) / d of other densities at test samples with shape (n, *event), in nats per dimension."""


class PlanePoints(Generated):
    """Points of a distribution in the plane."""

    event_shape = (2,)
    origin = "generated points in the plane"

    def __call__(self, index: Tensor, epoch: int = 0) -> Tensor:
        uniform = counter_uniform(index, seed=self._seed, step=0, count=4, bits=LARGEST_BITS)
        return self._place(uniform).float()

    @classmethod
    def references(cls, test: Tensor) -> dict[str, float]:
        return {"True density": -float(cls.log_density(test).mean()) / 2}

    @abstractmethod
    def _place(self, uniform: Tensor) -> Tensor:
        """Turn four uniform numbers for each point, shape (B, 4), into points, shape (B, 2)."""

    @classmethod
    @abstractmethod
    def log_density(cls, points: Tensor) -> Tensor:
        """Return the true log-density in nats, float64, shape (B,), of points with shape (B, 2)."""


class _Blurred(PlanePoints):
    """Equally likely N(centre, spread^2 I)."""

    spread: ClassVar[float]

    def _place(self, uniform: Tensor) -> Tensor:
        radius, angle = (-2 * (1 - uniform[:, 2]).log()).sqrt(), 2 * math.pi * uniform[:, 3]
        normal = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)  # Box and Muller
        return self._centre(uniform) + self.spread * normal

    @abstractmethod
    def _centre(self, uniform: Tensor) -> Tensor:
        """Return the centre of each point, shape (B, 2), by the first two uniform numbers."""

    @staticmethod
    @abstractmethod
    def _centres() -> Tensor:
        """Return all centres, or as many as stand for all, shape (n, 2), float64."""

    @classmethod
    def log_density(cls, points: Tensor) -> Tensor:
        centres = cls._centres()
        squares = (points.double()[:, None] - centres).square().sum(dim=-1)
        log_weights = -0.5 * squares / cls.spread**2 - math.log(2 * math.pi * cls.spread**2)
        mean: Tensor = log_weights.logsumexp(dim=1) - math.log(len(centres))
        return mean


class TwoMoons(_Blurred):
    """Two half circles of radius 2, uniform along each, with N(0, 0.2^2 I) added; the second is turned and shifted.

    The curves are (2 cos t - 1, 2 sin t - 0.2) and (1 - 2 cos t, 0.8 - 2 sin t), t uniform on [0, pi).
    """

    spread = 0.2

    def _centre(self, uniform: Tensor) -> Tensor:
        curves = torch.stack(self._curves(math.pi * uniform[:, 0]))
        return curves[(uniform[:, 1] >= 0.5).long(), torch.arange(len(uniform))]

    @staticmethod
    def _centres() -> Tensor:
        angle = math.pi * (torch.arange(_QUADRATURE, dtype=torch.float64) + 0.5) / _QUADRATURE
        return torch.cat(TwoMoons._curves(angle))

    @staticmethod
    def _curves(angle: Tensor) -> tuple[Tensor, Tensor]:
        across, up = 2 * angle.cos(), 2 * angle.sin()
        return torch.stack([across - 1, up - 0.2], dim=-1), torch.stack([1 - across, 0.8 - up], dim=-1)


class EightGaussians(_Blurred):
    """Eight equally likely N(centre, 0.35^2 I), the centres evenly spaced on a circle of radius 2.8."""

    spread = 0.35

    def _centre(self, uniform: Tensor) -> Tensor:
        return self._centres()[(8 * uniform[:, 0]).long()]

    @staticmethod
    def _centres() -> Tensor:
        angle = math.pi / 4 * torch.arange(8, dtype=torch.float64)
        return 2.8 * torch.stack([angle.cos(), angle.sin()], dim=-1)


class Checkerboard(PlanePoints):
    """Uniform on the eight unit squares of one colour of a 4 x 4 board, [-2, 2) x [-2, 2)."""

    def _place(self, uniform: Tensor) -> Tensor:
        square = (8 * uniform[:, 0]).long()
        row = square // 2
        column = 2 * (square % 2) + row % 2
        return torch.stack([column + uniform[:, 2], row + uniform[:, 3]], dim=-1) - 2

    @classmethod
    def log_density(cls, points: Tensor) -> Tensor:
        cell = (points.double() + 2).floor()
        inside = (cell >= 0).all(dim=1) & (cell < 4).all(dim=1) & (cell.sum(dim=1) % 2 == 0)
        return torch.where(inside, -math.log(8.0), -math.inf).double()


class PointSets(Generated):
    """Sets of 32 points: three centres from N(0, 2^2 I), each point near one of them at random, N(centre, 0.15^2 I).

    There are as many as a run asks for. Consecutive seeds share sets: take one from ``derive_seed`` or the like.
    """

    event_shape = (POINTS, DIMENSIONS)
    origin = (
        f"generated: {POINTS} points in the plane around {CENTRES} centres from N(0, {CENTRE_SPREAD:g}^2 I), "
        f"each from N(centre, {POINT_SPREAD:g}^2 I)"
    )

    def __call__(self, index: Tensor, epoch: int = 0) -> Tensor:
        return torch.stack([self._one(number) for number in index.tolist()])

    @classmethod
    def references(cls, test: Tensor) -> dict[str, float]:
        return {
            "Limit of any model whose points are independent": pointwise_limit(),
            "True density, clusters apart (approximate)": approximate_optimum(),
        }

    def _one(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed + number) % 2**63)
        centres = CENTRE_SPREAD * torch.randn(CENTRES, DIMENSIONS, generator=generator)
        owner = torch.randint(0, CENTRES, (POINTS,), generator=generator)
        return centres[owner] + POINT_SPREAD * torch.randn(POINTS, DIMENSIONS, generator=generator)


def pointwise_limit() -> float:
    """Return the least -log p(x) / d of any model that treats points independently, in nats per dimension.

    A point alone follows N(0, (2^2 + 0.15^2) I): the entropy of one of its coordinates.
    """
    return 0.5 * math.log(2 * math.pi * math.e * (CENTRE_SPREAD**2 + POINT_SPREAD**2))


def approximate_optimum() -> float:
    """Return -log p(x) / d of the true density in nats per dimension, as if clusters never touched.

    Given which points belong together, a cluster of n points has the covariance s^2 I + c^2 1 1^T in each coordinate.
    The 3^32 assignments are equally likely, and the order of the 3 centres does not matter. Touching clusters make
    the true value a little smaller.
    """
    inner = POINTS * DIMENSIONS * 0.5 * math.log(2 * math.pi * math.e * POINT_SPREAD**2)
    ratio, share = (CENTRE_SPREAD / POINT_SPREAD) ** 2, 1 / CENTRES
    sizes = range(POINTS + 1)
    chance = [math.comb(POINTS, n) * share**n * (1 - share) ** (POINTS - n) for n in sizes]
    centre = sum(p * 0.5 * math.log1p(n * ratio) for p, n in zip(chance, sizes, strict=True))
    owners = POINTS * math.log(CENTRES) - math.log(math.factorial(CENTRES))
    return (inner + DIMENSIONS * CENTRES * centre + owners) / (POINTS * DIMENSIONS)


GENERATED: Mapping[str, type[Generated]] = {
    "sets": PointSets,
    "two-moons": TwoMoons,
    "8-gaussians": EightGaussians,
    "checkerboard": Checkerboard,
}
"""Name -> distribution."""

PLANE = tuple(name for name, kind in GENERATED.items() if issubclass(kind, PlanePoints))
"""The names of those in the plane."""
