"""Training whose memory does not grow with the number of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from invattn._conditions import named_inputs
from invattn.bijections.base import Bijection, Block, as_block
from invattn.bijections.recompute import Drift, Reconstruction, apply_recomputed
from invattn.branches import Branch
from invattn.functional._transforms import transforms_active
from invattn.lipschitz import BiLipschitz
from invattn.solvers import Solution, Solver


class ConstantMemory(Block):
    """A chain that keeps its last output for the backward pass, and recovers every block's input by inverting it.

    An ordinary training step holds the graphs of all blocks at once. Here the forward pass records none. The backward
    pass goes from the last block to the first: it inverts the block at its output, evaluates it again at the recovered
    input with the same weights, random probes and autocast, pulls the gradients of z and of the log-determinant back,
    and drops the graph. Activation memory is that of one block, whatever the depth; the price is one further
    evaluation and one inverse a block.

    Only the last output is kept, and not every block's, because a certified block gives its input back to within
    rounding (docs/memory.md has the drift over 32 blocks); ``keep_every`` keeps more where that is not so.

    A gradient is never silently wrong. The input of the whole chain is kept, so that the first block, evaluated
    again, gives its true output; if what the inverses arrived at differs from it by more than ``drift_limit``, or an
    inverse does not converge, backward raises :class:`invattn.ConvergenceError`.

    Without gradients, and under torch.func transforms, the bijection is evaluated as if it stood alone. ``inverse``
    and its gradient are those of the bijection, with their ordinary memory.

    What goes on inside a :class:`invattn.bijections.Split` is a chain of its own and is treated in the same way: the
    memory of a multi-scale flow does not grow with its blocks either. Its blocks are inverted twice, and ``on_drift``
    reports those of the outer chain alone; an inner drift above the limit raises all the same.

    Args:
        bijection: A chain, :class:`invattn.bijections.Composed`; any other bijection counts as one block, whose input
            is kept and which is therefore never inverted.
        keep_every: Keep the output of every so many blocks too: less drift, and as many further activations. 1
            inverts nothing, which is ordinary checkpointing. None keeps the last output only.
        solver: How to invert in the backward pass, where the default is finer than for reports:
            ``Adaptive(atol=0, refine=2)`` reaches the rounding of the input; under autocast, which evaluates g in a
            lower precision, rtol is the rounding of that precision.
        drift_limit: The largest relative difference between a true output and its reconstruction; None is the square
            root of the unit of the precision used: 3e-4 in float32, 1.5e-8 in float64, 0.09 under bfloat16 autocast.
        on_drift: Called at the end of each backward pass with a :class:`invattn.bijections.Drift`.

    Raises:
        ValueError: If ``keep_every`` is below 1 or ``drift_limit`` not positive.

    References:
        Gomez et al. 2017 (reversible networks); Behrmann et al. 2019; docs/memory.md.

    Example:
        >>> import torch, invattn
        >>> from invattn.bijections import Composed, ConstantMemory
        >>> chain = Composed(invattn.invertible_attention(8, layout="tokens") for _ in range(4))
        >>> z, log_det = ConstantMemory(chain).forward_and_log_det(torch.randn(2, 16, 8))
        >>> (z.square().sum() - log_det.sum()).backward()
        >>> all(parameter.grad is not None for parameter in chain.parameters())
        True
    """

    def __init__(
        self,
        bijection: Bijection,
        *,
        keep_every: int | None = None,
        solver: Solver | None = None,
        drift_limit: float | None = None,
        on_drift: Callable[[Drift], None] | None = None,
    ) -> None:
        super().__init__()
        if keep_every is not None and keep_every < 1:
            raise ValueError(f"keep_every must be at least 1, or None; got {keep_every}.")
        if drift_limit is not None and not drift_limit > 0:
            raise ValueError(f"drift_limit must be positive, or None; got {drift_limit}.")
        self.bijection = bijection
        self.how = Reconstruction(keep_every=keep_every, solver=solver, drift_limit=drift_limit, on_drift=on_drift)

    @property
    def branch(self) -> Branch:
        return as_block(self.bijection).branch

    def to_branch(self, x: Tensor) -> Tensor:
        return as_block(self.bijection).to_branch(x)

    def from_branch(self, value: Tensor, like: Tensor) -> Tensor:
        return as_block(self.bijection).from_branch(value, like)

    @property
    def certified(self) -> bool:
        return self.bijection.certified

    @property
    def norm(self) -> str | None:
        return self.bijection.norm

    def bi_lipschitz(self, shape: Sequence[int], *, norm: str | None = None) -> BiLipschitz:
        return self.bijection.bi_lipschitz(shape, norm=norm)

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.output_shape(shape)

    def input_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return self.bijection.input_shape(shape)

    def forward(self, x: Tensor) -> Tensor:
        if not self._recomputes(x):
            return self.bijection(x)
        z, _ = apply_recomputed(self._links(), x, self.how, with_log_det=False)
        return z

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self._recomputes(x):
            return self.bijection.forward_and_log_det(x)
        return apply_recomputed(self._links(), x, self.how, with_log_det=True)

    def solve(self, z: Tensor, *, start: Tensor | None = None) -> Solution:
        return self.bijection.solve(z, start=start)

    def inverse(self, z: Tensor) -> Tensor:
        return self.bijection.inverse(z)

    def inverse_and_log_det(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse_and_log_det(z)

    def _links(self) -> list[Bijection]:
        """Return the blocks; a chain inside one of them (the rest of a Split) is treated as this one is."""
        inner = replace(self.how, on_drift=None)
        return [part.around(lambda rest: _with(rest, inner)) for part in self.bijection.parts()]

    def _recomputes(self, x: Tensor) -> bool:
        """Whether a backward pass may follow, and there is a block for it."""
        if not torch.is_grad_enabled() or transforms_active() or not self.bijection.parts():
            return False
        return x.requires_grad or any(value.requires_grad for value in named_inputs(self.bijection).values())

    def extra_repr(self) -> str:
        return "" if self.how.keep_every is None else f"keep_every={self.how.keep_every}"


def _with(bijection: Bijection, how: Reconstruction) -> ConstantMemory:
    wrapped = ConstantMemory(bijection)
    wrapped.how = how
    return wrapped
