"""The base class of log-determinant estimators, and what they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogDetEstimate:
    """log|det(I + J_g(x))| of every sample, and how far it may be from the truth.

    Attributes:
        image: g(x), shape of x.
        value: The estimate in nats, shape (B,); its gradient is the documented one of the estimator.
        standard_error: Standard error of the value over the random draws, an estimate, shape (B,), without gradient;
            0 where nothing is random, None where fewer than two draws cannot tell.
    """

    image: Tensor
    value: Tensor
    standard_error: Tensor | None


class LogDetEstimator(ABC):
    """A way to get log|det(I + J_g)|. Estimators are small immutable objects.

    Attributes:
        needs_separate_tokens: It is right only for branches that map each token by itself.
    """

    needs_separate_tokens: ClassVar[bool] = False

    @abstractmethod
    def estimate(
        self, branch: Callable[[Tensor], Tensor], x: Tensor, *, lipschitz: Callable[[], float | None] | None = None
    ) -> LogDetEstimate:
        """Return g(x), log|det(I + J_g(x))| and its errors.

        Args:
            branch: g, from (B, ...) to (B, ...), samples independent.
            x: Tokens (B, N, C) or images (B, C, H, W), floating point; left as it is.
            lipschitz: Returns a proven bound L < 1 of Lip(g), or None where there is none; asked only where needed.

        Returns:
            The estimate. The gradient of its value reaches x and the parameters of g and is that of the true quantity
            (in expectation where sampled).
        """

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """The generators that a call draws from, besides torch's default ones: what a recomputation must rewind."""
        return ()

    @abstractmethod
    def truncation_bound(self, size: int, lipschitz: float) -> float:
        """Return a proven bound, in nats, of what cutting a series adds to the expected value; 0 if nothing is cut.

        Args:
            size: d, the number of entries of a sample.
            lipschitz: L < 1, a proven bound of Lip(g) in any norm.

        References:
            docs/theory.md, "Consequences".
        """

    def __call__(self, branch: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Return g(x) and log|det(I + J_g(x))|; see :meth:`estimate`."""
        found = self.estimate(branch, x)
        return found.image, found.value
