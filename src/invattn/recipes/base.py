"""What every recipe object shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invattn import _kinds
from invattn._errors import check_name
from invattn.branches import Branch, Score, make_score
from invattn.branches.attention.scores import LinearFactory, plain_linear

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
        key_channels: Channels of a query and of a key, per head; None is channels // 4, at least 1.
        num_heads: H, a divisor of C.
        lipschitz: c of the paper: the bound of a certified block; the coefficient of the constrained convolutions
            of the others.
        mask: Boolean (N, N), True where query i may see key j; or None.
        causal: Token i sees tokens 0 ... i. With column or total normalisation (paper, released_generative) the
            normaliser still sums over later tokens: only row-normalised recipes are causal in the strict sense.
        context_channels: K of the context of each sample; 0: none.
        backend: Name of the back end of the attention; None: one is chosen at each call.

    Raises:
        ValueError: If the kind is unknown (the nearest is suggested) or does not go with the rest, or a number is out
            of range.
    """

    kind: str
    channels: int
    key_channels: int | None
    num_heads: int
    lipschitz: float
    mask: Tensor | None = None
    causal: bool = False
    context_channels: int = 0
    backend: str | None = None

    def __post_init__(self) -> None:
        check_name(self.kind, KINDS, what="attention kind")
        numbers = (self.channels, self.num_heads, self.key_channels)
        if any(number is not None and number < 1 for number in numbers):
            got = ", ".join(map(str, numbers))
            raise ValueError(f"channels, num_heads and key_channels must be at least 1; got {got}.")
        if self.kind == "pointwise" and (self.mask is not None or self.causal):
            raise ValueError("the pointwise control mixes no tokens: it takes neither mask nor causal.")
        if self.kind == "pointwise" and self.backend is not None:
            raise ValueError("the pointwise control mixes no tokens: it has no back end to choose.")

    def make_score(self, linear: LinearFactory = plain_linear) -> Score:
        """Make the score of the kind, with linear maps of this sort."""
        width = max(1, self.channels // 4) if self.key_channels is None else self.key_channels
        return make_score(
            self.kind, channels=self.channels, key_channels=width, num_heads=self.num_heads, linear=linear
        )


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
