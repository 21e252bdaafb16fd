"""The base class of log-determinant estimators, and what they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


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


WHOLE = Shard()
"""The part of a process that has every sample."""


Transpose = Callable[[Tensor], Tensor]
"""From v to J^T v, both with the shape of x: values only, without a graph."""


class Linearisable(ABC):
    """A map that knows how to apply the transpose of its derivative many times at one point."""

    @abstractmethod
    def linearised(self, x: Tensor) -> tuple[Tensor, Transpose]:
        """Return g(x) with its graph, and v -> J^T v, for which what does not depend on v is computed once.

        Args:
            x: A point with shape (B, ...) that requires a gradient.
        """


def linearised(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Transpose]:
    """Return g(x) and v -> J^T v of any map; see :meth:`Linearisable.linearised`."""
    known: object = function
    return known.linearised(x) if isinstance(known, Linearisable) else linearised_by_graph(function, x)


def linearised_by_graph(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Transpose]:
    """Return g(x) and v -> J^T v, which walks through the graph of g(x) at every call."""
    image = function(x)

    def transpose(vector: Tensor) -> Tensor:
        return torch.autograd.grad(image, x, vector, retain_graph=True)[0]

    return image, transpose


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


def standard_error(draws: list[Tensor]) -> Tensor | None:
    """Return the standard error of the mean of draws, each with shape (B,); None for fewer than two."""
    if len(draws) < 2:
        return None
    error: Tensor = torch.stack([draw.detach() for draw in draws]).std(dim=0) / len(draws) ** 0.5
    return error
