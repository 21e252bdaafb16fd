"""Branches that a scale of their last map holds at a Lipschitz constant, and contexts that move their biases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn._conditions import Condition, Conditional, PerSample
from invattn.branches.base import Branch
from invattn.lipschitz import LipschitzBound


class ScaledBranch(Branch):
    """A branch with Lip(g) <= c, because the norms of its weights say by how much its last map has to be scaled.

    A subclass says how norms become weights, how these become g(x), and what bound they prove; each norm is then
    computed once in every call. It sets ``context`` at the end of its constructor.

    Args:
        channels: C.
        lipschitz: c, strictly between 0 and 1.
    """

    context: ContextShift | None
    certificate_norm: str = "inf,2"

    def __init__(self, *, channels: int, lipschitz: float) -> None:
        super().__init__()
        if not 0 < lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {lipschitz}.")
        self.channels = channels
        self.lipschitz = lipschitz

    @property
    def certified(self) -> bool:
        return True

    @abstractmethod
    def _norms(self) -> tuple[Tensor, ...]:
        """Return bounds of the norms of the weights as they are stored, float64, differentiable."""

    @abstractmethod
    def _scaled(self, norms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the weights, or their scales, as forward multiplies them, differentiable."""

    @abstractmethod
    def _apply_scaled(self, x: Tensor, shift: Tensor | None = None, *, scaled: tuple[Tensor, ...]) -> Tensor:
        """Return g(x) from what the context adds to all biases and the scaled weights."""

    @abstractmethod
    def _bound(self, norms: tuple[Tensor, ...], scaled: tuple[Tensor, ...]) -> LipschitzBound:
        """Return the bound of g with the scaled weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self._apply_scaled(x, shifts_of(self.context, x), scaled=self._scaled(self._norms()))

    @torch.no_grad()
    def at_present_weights(self) -> Callable[[Tensor], Tensor]:
        return self._fixed(self._scaled(self._norms()))

    @torch.no_grad()
    def proven_at_present_weights(self) -> tuple[Callable[[Tensor], Tensor], LipschitzBound]:
        norms = self._norms()
        scaled = self._scaled(norms)
        return self._fixed(scaled), self._bound(norms, scaled)

    @torch.no_grad()
    def lipschitz_bound(self) -> LipschitzBound:
        """Return the bound from the weights as forward multiplies them, in float64 with a margin for rounding."""
        norms = self._norms()
        return self._bound(norms, self._scaled(norms))

    def _fixed(self, scaled: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
        run = partial(self._apply_scaled, scaled=scaled)
        return run if self.context is None else PerSample(run, self.context.at_present_context())

    def extra_repr(self) -> str:
        return f"channels={self.channels}, lipschitz={self.lipschitz}"


class ContextShift(Conditional):
    """U c, which is added to the biases inside a branch, before what stands after them.

    For every context g is a branch with other biases: Lip(g) <= c holds as it does without. U starts at zero, so that
    a branch starts as one without a context.

    Args:
        context_channels: K, the entries of a sample's context.
        widths: Lengths of the biases.

    Raises:
        ValueError: If ``context_channels`` is below 1.
    """

    def __init__(self, context_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        if context_channels < 1:
            raise ValueError(f"context_channels must be at least 1, or 0 for no context; got {context_channels}.")
        self.context_channels = context_channels
        self.widths = tuple(widths)
        self.linear = nn.Linear(context_channels, sum(self.widths), bias=False)
        nn.init.zeros_(self.linear.weight)

    @property
    def need(self) -> str:
        return f"a context with {self.context_channels} channels"

    def take(self, condition: Condition) -> Tensor | None:
        context = condition.context
        if context is None:
            return None
        if not context.is_floating_point() or context.dim() != 2 or context.shape[1] != self.context_channels:
            raise ValueError(
                f"the context must be floating point with shape (B, {self.context_channels}); got {context.dtype} "
                f"with shape {tuple(context.shape)}."
            )
        return context

    def forward(self, batch: int) -> Tensor:
        """Return what is added to all biases one after another, shape (B, sum of the widths).

        Raises:
            ValueError: If no context was given, or one of another batch.
        """
        return self._shift(self.values_of(batch))

    def __call__(self, batch: int) -> Tensor:
        result: Tensor = super().__call__(batch)
        return result

    def at_present_context(self) -> Tensor:
        """Return the same for the batch that the context was given for."""
        return self._shift(self.values())

    def _shift(self, context: Tensor) -> Tensor:
        return F.linear(context.to(self.linear.weight.dtype), self.linear.weight)

    def extra_repr(self) -> str:
        return f"context_channels={self.context_channels}, widths={self.widths}"


def make_shift(context_channels: int, widths: Sequence[int]) -> ContextShift | None:
    """Return a shift of biases of these lengths, or None without a context."""
    return ContextShift(context_channels, widths) if context_channels else None


def shifts_of(context: ContextShift | None, x: Tensor) -> Tensor | None:
    """Return the shift of all biases for a batch of inputs, None without a context."""
    return None if context is None else context(x.shape[0])


def split_shift(shift: Tensor | None, widths: Sequence[int]) -> Sequence[Tensor | None]:
    """Return what is added to each bias, (B, width) each, None for zero."""
    return [None] * len(widths) if shift is None else torch.split(shift, list(widths), dim=1)


def shifted(image: Tensor, shift: Tensor | None) -> Tensor:
    """Add one number a channel, shape (B, C) or None for zero, to images, tokens or vectors of a batch."""
    if shift is None:
        return image
    if image.dim() == 4:
        return image + shift[:, :, None, None]
    return image + (shift if image.dim() == 2 else shift[:, None])


_VALUE, _OUTPUT = 0.5, 2.0


@torch.no_grad()
def start_as_shift(value: nn.Linear, output: nn.Linear) -> None:
    """Set W_V = I/2, W_L = -2 I and no biases, so that g(x)_i is about -(the mean of the tokens that token i sees).

    Where a token sees those of its own cluster, x + g(x) shrinks the cluster's centre and leaves the differences
    within it alone: what a density model of exchangeable points has to do. The scale that holds the certificate then
    takes the part of W_L that the bound does not allow.

    Args:
        value: The map W_V, C to C.
        output: The map W_L, C to C.
    """
    for linear, factor in ((value, _VALUE), (output, -_OUTPUT)):
        linear.weight.copy_(factor * torch.eye(*linear.weight.shape))
        linear.bias.zero_()
