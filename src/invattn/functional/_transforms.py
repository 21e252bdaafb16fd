"""What the surrounding torch.func transforms allow."""

from __future__ import annotations

from contextlib import AbstractContextManager

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
