"""What every recipe object shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invattn import _kinds
from invattn.branches import Branch

ATTENTION_KINDS = tuple(_kinds.KINDS)
"""The kinds of attention: the four of the paper's Table 1."""

KINDS = (*ATTENTION_KINDS, "pointwise")
"""All kinds: those of attention, and the control in which the weights are the identity."""


@dataclass(frozen=True)
class BlockShape:
    """What the caller fixes about a block, whatever the recipe.

    Attributes:
        kind: One of :data:`KINDS`.
        channels: C.
        key_channels: Channels of a query and of a key, per head.
        num_heads: H, a divisor of C.
        lipschitz: c of the paper: the bound of a certified block; the coefficient of the constrained convolutions
            of the others.
        mask: Boolean (N, N), True where query i may see key j; or None.
        causal: Token i sees tokens 0 ... i.
        context_channels: K of the context of each sample, or None.
        backend: Name of the back end of the attention; None: one is chosen at each call.
    """

    kind: str
    channels: int
    key_channels: int
    num_heads: int
    lipschitz: float
    mask: Tensor | None = None
    causal: bool = False
    context_channels: int | None = None
    backend: str | None = None


class Recipe(ABC):
    """A named form of attention: which maps are constrained, how responses are normalised.

    Attributes:
        takes_context: Whether its branches can depend on a context.
    """

    name: ClassVar[str]
    takes_context: ClassVar[bool] = False

    @abstractmethod
    def build(self, shape: BlockShape) -> Branch:
        """Make the branch g of a block.

        Raises:
            ValueError: If the recipe does not go with the shape.
        """
