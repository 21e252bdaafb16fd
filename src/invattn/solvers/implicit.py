"""Gradients through an inverse by the implicit function theorem, under torch.func transforms as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from invattn.functional._transforms import transforms_active
from invattn.lipschitz import held_estimates
from invattn.solvers.adjoint import solve_adjoint


def attach_gradient(branch: Callable[[Tensor], Tensor], target: Tensor, solved: Tensor) -> Tensor:
    """Return the solved value with the gradient of the exact inverse.

    For x = f^{-1}(z) and an incoming v, grad_z = w and grad_theta = -w^T d_theta g, where (I + J)^T w = v is solved
    by the same iteration, one vector-Jacobian product a step; memory does not depend on the number of steps. Works
    under torch.func.vjp, grad, jacrev and vmap too; forward-mode differentiation is not defined.

    Args:
        branch: g.
        target: z with shape (B, N, C).
        solved: x with x + g(x) = z, same shape, without gradient.

    Returns:
        A tensor equal to ``solved`` whose gradient reaches z and the parameters of g. First order only: a second
        differentiation raises RuntimeError.

    References:
        docs/theory.md, "Consequences"; Bai et al. 2019 (implicit layers).
    """
    if transforms_active():
        with held_estimates(branch):
            stepped = target - branch(solved)
        return _attach(stepped, solved, branch)
    point = solved.detach().requires_grad_()
    with held_estimates(branch):
        image = branch(point)
        stepped = target - branch(solved.detach())
    if not stepped.requires_grad:
        return solved

    def hook(incoming: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of an inverse cannot be differentiated again; use create_graph=False.")

        def transposed(vector: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(image, point, vector, retain_graph=True)
            return product

        return solve_adjoint(transposed, incoming)

    stepped.register_hook(hook)  # type: ignore[no-untyped-call]
    return stepped + (solved - stepped).detach()


def fold_into_batch(function: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """Return function(target) without gradient; under torch.func.vmap its axis becomes part of the batch.

    A solver chooses its steps by what it sees, which vmap cannot follow; samples are independent, so it need not.

    Args:
        function: A map of batches (B, ...) of any B.
        target: Its input with shape (B, ...).
    """
    if not transforms_active():
        return function(target.detach())
    result: Tensor = _Fold.apply(target.detach(), function)  # type: ignore[no-untyped-call]
    return result


def _attach(stepped: Tensor, solved: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    result: Tensor = _Attach.apply(stepped, solved, branch)  # type: ignore[no-untyped-call]
    return result


def _adjoint(incoming: Tensor, stepped: Tensor, solved: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    result: Tensor = _Adjoint.apply(incoming, stepped, solved, branch)  # type: ignore[no-untyped-call]
    return result


def _folded(
    function: Callable[..., Tensor], size: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor]
) -> tuple[Tensor, int]:
    """Call a function of batches whose arguments have one more axis, at in_dims, by folding it into the batch."""
    folded = [
        (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]
    result = function(*folded)
    return result.reshape(size, result.shape[0] // size, *result.shape[1:]), 0


class _Fold(torch.autograd.Function):
    """A function of a batch that vmap calls once, with its axis folded into the batch."""

    @staticmethod
    def forward(target: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(target)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, target: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
        return _folded(lambda rows: fold_into_batch(function, rows), info.batch_size, in_dims[:1], [target])


class _Attach(torch.autograd.Function):
    """The solved value, whose gradient is handed to z - g(x) after the adjoint has been solved."""

    @staticmethod
    def forward(stepped: Tensor, solved: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        return solved.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.branch = inputs[2]
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor, None, None]:
        stepped, solved = ctx.saved_tensors
        return _adjoint(incoming[0], stepped, solved, ctx.branch), None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, stepped: Tensor, solved: Tensor, branch: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, int]:
        return _folded(lambda z, x: _attach(z, x, branch), info.batch_size, in_dims[:2], [stepped, solved])


class _Adjoint(torch.autograd.Function):
    """w with (I + J(x))^T w = v. It takes z - g(x) only so that a second differentiation finds it, and is refused."""

    @staticmethod
    def forward(incoming: Tensor, stepped: Tensor, solved: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            _, pull = torch.func.vjp(branch, solved)  # type: ignore[misc]
        return solve_adjoint(lambda vector: pull(vector)[0], incoming)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is needed for a backward that refuses."""

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        raise RuntimeError("the gradient of an inverse cannot be differentiated again.")

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, incoming: Tensor, stepped: Tensor, solved: Tensor, branch: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, int]:
        tensors = [incoming, stepped, solved]
        return _folded(lambda v, z, x: _adjoint(v, z, x, branch), info.batch_size, in_dims[:3], tensors)
