"""Base distributions that follow a module to another device and dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints


class StandardNormal(nn.Module, Distribution):
    """N(0, I) over samples of a given shape.

    Args:
        event_shape: The shape of one sample, without the batch.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    _zero: Tensor

    def __init__(self, event_shape: Sequence[int]) -> None:
        nn.Module.__init__(self)
        Distribution.__init__(self, torch.Size(), torch.Size(event_shape), validate_args=False)
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log N(value; 0, I) in nats, shape (B,)."""
        flat = value.flatten(value.dim() - len(self.event_shape))
        return -0.5 * (flat.square().sum(dim=-1) + flat.shape[-1] * math.log(2 * math.pi))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw samples with shape (*sample_shape, *event_shape)."""
        return torch.randn(
            torch.Size((*sample_shape, *self.event_shape)), dtype=self._zero.dtype, device=self._zero.device
        )
