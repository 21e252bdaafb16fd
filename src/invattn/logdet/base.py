"""The base class of log-determinant estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class LogDetEstimator(ABC):
    """A way to get log|det(I + J_g)|. Estimators are small immutable objects."""

    @abstractmethod
    def __call__(self, branch: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Return g(x) and log|det(I + J_g(x))|.

        Args:
            branch: g, from (B, ...) to (B, ...), samples independent.
            x: Tokens (B, N, C) or images (B, C, H, W), floating point.

        Returns:
            The image, shape of x, and the log-determinant in nats, shape (B,). The gradient of the latter
            reaches x and the parameters of g and is that of the true quantity (in expectation where sampled).
        """

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """The generators that a call draws from, besides torch's default ones: what a recomputation must rewind."""
        return ()
