"""Generated sets of points in the plane, where the density of a point depends on the others."""

from __future__ import annotations

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
