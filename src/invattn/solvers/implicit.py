"""The inverse as a function of z and the parameters that can be differentiated any number of times.

x = f^{-1}(z; theta) has dx = (I + J)^{-1} (dz - d_theta g). Its backward solves an equation with (I + J)^T; the
backward of that one solves an equation with I + J, whose backward solves one with (I + J)^T again. Each solve is an
autograd function of its own, whose forward no transform sees into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invattn.functional._transforms import folded, outer_tangents, own_primal
from invattn.norms import get_dual_norm, get_norm
from invattn.solvers.contraction import LinearPlan, solve_contraction
from invattn.solvers.linearisation import ExplicitBranch, push_forward


@dataclass(frozen=True, eq=False)
class Implicit:
    """What all derivatives of one inverse share.

    Attributes:
        branch: g as a function of x and the parameters.
        plan: How linear equations are solved.
        norm: Name of the norm that J contracts in, if it does.
    """

    branch: ExplicitBranch
    plan: LinearPlan
    norm: str


def implicit_inverse(shared: Implicit, target: Tensor, solved: Tensor, values: list[Tensor]) -> Tensor:
    """Return the solved x as a differentiable function of z and the parameters.

    Args:
        shared: g and how to solve.
        target: z with shape (B, ...).
        solved: x with x + g(x) = z, same shape.
        values: The parameters of g.
    """
    result: Tensor = _Inverse.apply(target, solved, shared, *values)  # type: ignore[no-untyped-call]
    return result


def _solve_adjoint(shared: Implicit, incoming: Tensor, x: Tensor, values: Sequence[Tensor]) -> Tensor:
    result: Tensor = _Adjoint.apply(incoming, x, shared, *values)  # type: ignore[no-untyped-call]
    return result


def _solve_tangent(shared: Implicit, incoming: Tensor, x: Tensor, values: Sequence[Tensor]) -> Tensor:
    result: Tensor = _Tangent.apply(incoming, x, shared, *values)  # type: ignore[no-untyped-call]
    return result


class _Inverse(torch.autograd.Function):
    """x(z, theta): backward w = (I + J)^{-T} v, grad_z = w, grad_theta = -w^T d_theta g."""

    @staticmethod
    def forward(target: Tensor, solved: Tensor, shared: Implicit, *values: Tensor) -> Tensor:
        return solved.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.shared = inputs[2]
        ctx.save_for_backward(output, *inputs[3:])
        ctx.save_for_forward(output, *inputs[3:])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        x, *values = ctx.saved_tensors
        adjoint = _solve_adjoint(ctx.shared, incoming[0], x, values)
        if not any(ctx.needs_input_grad[3:]):
            return adjoint, None, None, *(None for _ in values)
        _, *products = ctx.shared.branch.pull(-adjoint, x, values)
        return adjoint, None, None, *products

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return (I + J)^{-1} (dz - d_theta g dtheta)."""
        with outer_tangents():
            x, *values = (own_primal(tensor) for tensor in ctx.saved_tensors)
            push = _push(ctx.shared.branch, (x, *values), (None, *tangents[3:]))
            return _solve_tangent(ctx.shared, _minus(tangents[0], push), x, values)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, target: Tensor, solved: Tensor, shared: Implicit, *values: Tensor
    ) -> tuple[Tensor, int]:
        def call(z: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
            return implicit_inverse(shared, z, x, list(parameters))

        return _mapped(call, info.batch_size, in_dims[:2], in_dims[3:], (target, solved), values)


class _Adjoint(torch.autograd.Function):
    """w(v, x, theta) with (I + J)^T w = v: backward y = (I + J)^{-1} u, and -<w, J y> by x and theta."""

    @staticmethod
    def forward(incoming: Tensor, x: Tensor, shared: Implicit, *values: Tensor) -> Tensor:
        transposed = shared.branch.transposed(x, values)
        return solve_contraction(transposed, incoming, norm=get_dual_norm(shared.norm), plan=shared.plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.shared = inputs[2]
        ctx.save_for_backward(output, inputs[1], *inputs[3:])
        ctx.save_for_forward(output, inputs[1], *inputs[3:])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        adjoint, x, *values = ctx.saved_tensors
        tangent = _solve_tangent(ctx.shared, incoming[0], x, values)
        by_x, *products = ctx.shared.branch.pull_tangent(-adjoint, tangent, x, values)
        return tangent, by_x, None, *products

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return (I + J)^{-T} (dv - (dJ)^T w)."""
        with outer_tangents():
            adjoint, x, *values = (own_primal(tensor) for tensor in ctx.saved_tensors)

            def transposed(point: Tensor, *parameters: Tensor) -> Tensor:
                product: Tensor = ctx.shared.branch.pull(adjoint, point, parameters)[0]
                return product

            push = _push(transposed, (x, *values), (tangents[1], *tangents[3:]))
            return _solve_adjoint(ctx.shared, _minus(tangents[0], push), x, values)

    @staticmethod
    def vmap(info: Any, in_dims: Any, incoming: Tensor, x: Tensor, shared: Implicit, *values: Tensor) -> Any:
        def call(v: Tensor, point: Tensor, *parameters: Tensor) -> Tensor:
            return _solve_adjoint(shared, v, point, parameters)

        return _mapped(call, info.batch_size, in_dims[:2], in_dims[3:], (incoming, x), values)


class _Tangent(torch.autograd.Function):
    """y(u, x, theta) with (I + J) y = u: backward a = (I + J)^{-T} c, and -<a, J y> by x and theta."""

    @staticmethod
    def forward(incoming: Tensor, x: Tensor, shared: Implicit, *values: Tensor) -> Tensor:
        pushed = shared.branch.pushed(x, values)
        return solve_contraction(pushed, incoming, norm=get_norm(shared.norm), plan=shared.plan)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.shared = inputs[2]
        ctx.save_for_backward(output, inputs[1], *inputs[3:])
        ctx.save_for_forward(output, inputs[1], *inputs[3:])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        tangent, x, *values = ctx.saved_tensors
        adjoint = _solve_adjoint(ctx.shared, incoming[0], x, values)
        by_x, *products = ctx.shared.branch.pull_tangent(-adjoint, tangent, x, values)
        return adjoint, by_x, None, *products

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return (I + J)^{-1} (du - dJ y)."""
        with outer_tangents():
            tangent, x, *values = (own_primal(tensor) for tensor in ctx.saved_tensors)

            def pushed(point: Tensor, *parameters: Tensor) -> Tensor:
                return _push(ctx.shared.branch, (point, *parameters), (tangent, *(None for _ in parameters)))

            push = _push(pushed, (x, *values), (tangents[1], *tangents[3:]))
            return _solve_tangent(ctx.shared, _minus(tangents[0], push), x, values)

    @staticmethod
    def vmap(info: Any, in_dims: Any, incoming: Tensor, x: Tensor, shared: Implicit, *values: Tensor) -> Any:
        def call(u: Tensor, point: Tensor, *parameters: Tensor) -> Tensor:
            return _solve_tangent(shared, u, point, parameters)

        return _mapped(call, info.batch_size, in_dims[:2], in_dims[3:], (incoming, x), values)


def _push(function: Callable[..., Tensor], point: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> Tensor:
    """Return the derivative of a function along tangents, None for zero."""
    moved = [i for i, tangent in enumerate(tangents) if tangent is not None]
    if not moved:
        return torch.zeros_like(point[0])

    def of_moved(*some: Tensor) -> Tensor:
        every = list(point)
        for i, value in zip(moved, some, strict=True):
            every[i] = value
        return function(*every)

    return push_forward(of_moved, [point[i] for i in moved], [t for t in tangents if t is not None])


def _minus(change: Tensor | None, push: Tensor) -> Tensor:
    """Return change - push, where None is zero."""
    return -push if change is None else change - push


def _mapped(
    call: Callable[..., Tensor],
    size: int,
    dims: tuple[int | None, ...],
    value_dims: tuple[int | None, ...],
    samples: tuple[Tensor, ...],
    values: tuple[Tensor, ...],
) -> tuple[Tensor, int]:
    """Fold the mapped axis into the batch; where it is one of parameters, call once for each of its entries."""
    if all(dim is None for dim in value_dims):
        return folded(lambda *rows: call(*rows, *values), size, dims, samples)
    pairs = list(zip((*samples, *values), (*dims, *value_dims), strict=True))
    parts = [call(*(part if dim is None else part.select(dim, i) for part, dim in pairs)) for i in range(size)]
    return torch.stack(parts), 0
