"""What the surrounding torch.func transforms allow, and how the axis of vmap becomes part of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def transforms_active() -> bool:
    """Whether a torch.func transform (grad, vjp, jvp, vmap, ...) is being applied right now."""
    return bool(torch._C._are_functorch_transforms_active())


def plain_autograd() -> bool:
    """Whether derivatives are those of autograd backwards alone: no transform, no forward mode, no compilation."""
    return not (transforms_active() or torch.compiler.is_compiling() or forward_ad._current_level >= 0)


def lasting_copy(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor, without gradient, that may be used after the transforms being applied now have ended.

    A copy made in the ordinary way belongs to the innermost transform, and using it in the derivative of an outer one
    is an internal error of torch. (A tensor that a transform has wrapped itself belongs to that anyway.)
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return tensor.detach().clone()
    with torch._C._DisableFuncTorch():
        return tensor.detach().clone()


def outer_tangents() -> AbstractContextManager[None]:
    """Let the jvp of an autograd function be differentiated forwards itself, by a torch.func.jvp around it.

    Torch switches forward mode off inside such a jvp; without this the outer derivative would miss its operations,
    silently. What it computes with must then be stripped of the inner tangents: see :func:`own_primal`.
    """
    manager: AbstractContextManager[None] = forward_ad._set_fwd_grad_enabled(True)
    return manager


def own_primal(tensor: Tensor) -> Tensor:
    """Return a tensor that the jvp of an autograd function was given, without the tangent of the present level."""
    primal: Tensor = forward_ad.unpack_dual(tensor).primal  # type: ignore[no-untyped-call]
    return primal


def fold_into_batch(function: Callable[..., Tensor], target: Tensor, *values: Tensor) -> Tensor:
    """Return function(target, *values) without gradient; under torch.func.vmap its axis becomes part of the batch.

    A solver chooses its steps by what it sees, which vmap cannot follow; samples are independent, so it need not.

    Args:
        function: A map of batches (B, ...) of any B.
        target: Its input with shape (B, ...).
        values: Further inputs, one row a sample.
    """
    rows = [tensor.detach() for tensor in (target, *values)]
    if not transforms_active():
        return function(*rows)
    result: Tensor = _Fold.apply(function, *rows)  # type: ignore[no-untyped-call]
    return result


def folded(
    function: Callable[..., Tensor], size: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor]
) -> tuple[Tensor, int]:
    """Call a function of batches whose arguments have one more axis, at in_dims, by folding it into the batch.

    Returns:
        The result with the further axis in front, and 0, that axis: what the vmap of an autograd function returns.
    """
    # Contiguous: forward mode refuses a batch of one sample that is expanded, whose rows share their memory.
    rows = [tensor.flatten(0, 1).contiguous() for tensor in in_front(size, in_dims, tensors)]
    result = function(*rows)
    return result.reshape(size, result.shape[0] // size, *result.shape[1:]), 0


def in_front(size: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return what the vmap of an autograd function is given with the mapped axis, of this size, in front of each."""
    return [
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


class _Fold(torch.autograd.Function):
    """A function of a batch that vmap calls once, with its axis folded into the batch."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        return function(*rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Tensor], *rows: Tensor) -> tuple[Tensor, int]:
        return folded(lambda *parts: fold_into_batch(function, *parts), info.batch_size, in_dims[1:], rows)
