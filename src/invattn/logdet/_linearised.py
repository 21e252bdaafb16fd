"""The transpose of a map's derivative at one point, applied many times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

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
