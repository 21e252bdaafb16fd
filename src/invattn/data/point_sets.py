"""Generated sets of points in the plane, where the density of a point depends on the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

POINTS, DIMENSIONS = 32, 2
CENTRES = 3
CENTRE_SPREAD, POINT_SPREAD = 2.0, 0.15


class PointSets:
    """Sets of 32 points: three centres from N(0, 2^2 I), each point near one of them at random, N(centre, 0.15^2 I).

    Set number i is a function of the seed and of i alone, whatever the batch and the order of calls: there are as
    many sets as a run asks for.

    Args:
        seed: Decides every set; consecutive seeds share sets, so take one from ``derive_seed`` or the like.
    """

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def __call__(self, index: Tensor, epoch: int = 0) -> Tensor:
        """Return sets with shape (B, 32, 2), float32.

        Args:
            index: Numbers of the sets, shape (B,), at least 0.
            epoch: Ignored: a set is the same in every epoch.
        """
        return torch.stack([self._one(number) for number in index.tolist()])

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
