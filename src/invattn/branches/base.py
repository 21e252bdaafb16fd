"""The base class of residual branches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

from invattn._conditions import Condition, bind
from invattn._errors import CertificateError
from invattn.functional import Choice
from invattn.lipschitz import LipschitzBound
from invattn.logdet._linearised import Linearisable, Transpose, linearised_by_graph


class Branch(nn.Module, Linearisable, ABC):
    """A map g over tokens or images; ``x + g(x)`` is a bijection where g is a contraction.

    Samples of a batch are independent of each other: a solver may evaluate any subset of them.
    """

    channels: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return g(x) with the shape of x: (B, N, C) tokens, unless the class says (B, C, H, W)."""

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = super().__call__(x)
        return result

    def at_present_weights(self) -> Callable[[Tensor], Tensor]:
        """Return g as a function to be evaluated many times without gradient while no weight changes.

        What depends on the weights alone is computed once; the values are those of forward.
        """
        return self

    def proven_at_present_weights(self) -> tuple[Callable[[Tensor], Tensor], LipschitzBound]:
        """Return :meth:`at_present_weights` and :meth:`lipschitz_bound`; norms that both need are computed once.

        Raises:
            CertificateError: If there is no bound for this branch.
        """
        return self.at_present_weights(), self.lipschitz_bound()

    def linearised(self, x: Tensor) -> tuple[Tensor, Transpose]:
        return linearised_by_graph(self, x)

    def given(self, context: Tensor) -> Self:
        """Return a view of this branch at a context; it shares the parameters and leaves this one as it is.

        Args:
            context: One row a sample, shape (B, K). For every context the Lipschitz bound is the same.

        Returns:
            The view; the branch itself if it takes no context.

        Raises:
            ValueError: If the context has another shape.
        """
        return bind(self, Condition(context=context))

    @property
    def kind(self) -> str:
        """What the branch is, in a word or two for tables: "concatenation attention"."""
        return type(self).__name__

    @property
    def mixes_tokens(self) -> bool:
        """Whether token i of g(x) may depend on other tokens of x."""
        return True

    @property
    def certified(self) -> bool:
        """Whether :meth:`lipschitz_bound` exists."""
        return False

    @property
    def certificate_norm(self) -> str:
        """The norm that :meth:`lipschitz_bound` is stated in; a class that knows it without computing a bound says so.

        Raises:
            CertificateError: If there is no bound for this branch.
        """
        return self.lipschitz_bound().norm

    def lipschitz_bound(self) -> LipschitzBound:
        """Return a proven bound of Lip(g), from the weights as they are now.

        Raises:
            CertificateError: If there is none for this branch.
        """
        raise CertificateError(
            f"{type(self).__name__} has no proven Lipschitz bound: its response is unbounded, and for suitable tokens "
            "it maps two inputs to one output. Use recipe='certified', or invert it with block.solve, which reports "
            "per sample."
        )

    def attention_weights(self, x: Tensor) -> Tensor:
        """Return the dense attention map with shape (B, heads, N, N) at tokens x, shape (B, N, C).

        Raises:
            ValueError: If the branch has no attention.
        """
        raise ValueError(f"{type(self).__name__} has no attention map.")

    def explain(self, x: Tensor) -> Choice:
        """Return which back end computes the attention of tokens x, shape (B, N, C), and why.

        Raises:
            ValueError: If the branch has no attention.
        """
        raise ValueError(f"{type(self).__name__} has no attention to explain.")

    def check_input(self, x: Tensor) -> None:
        """Raise unless x is floating point with the shape that forward takes: here (B, N, channels)."""
        if not x.is_floating_point():
            raise TypeError(f"tokens must be floating point; got {x.dtype}. Convert them first: x.float().")
        if x.dim() != 3 or x.shape[-1] != self.channels:
            raise ValueError(f"tokens must have shape (B, N, {self.channels}); got {tuple(x.shape)}.")
