"""How gradients go through an inverse: by the implicit function theorem, or through explicit steps.

x = f^{-1}(z; theta) has dx = (I + J)^{-1} (dz - d_theta g). The backward of :class:`ImplicitAdjoint` solves an equation
with (I + J)^T; the backward of that one solves an equation with I + J, whose backward solves one with (I + J)^T again,
so that it can be differentiated any number of times. Each solve is an autograd function of its own, whose forward no
transform sees into.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from invattn._conditions import named_inputs
from invattn.functional._transforms import folded, outer_tangents, own_primal, plain_autograd, transforms_active
from invattn.lipschitz.constrained import held_estimates
from invattn.norms import get_dual_norm, get_norm
from invattn.solvers.contraction import solve_contraction
from invattn.solvers.linearisation import ExplicitBranch, explicit_branch, push_forward


class InverseGradient(ABC):
    """A way to make a solved inverse a differentiable function of z and the parameters. Immutable, without state."""

    @abstractmethod
    def __call__(self, branch: nn.Module, target: Tensor, solved: Tensor, *, norm: str = "inf,2") -> Tensor:
        """Return the solved value with a gradient.

        Args:
            branch: g, a module that maps (B, ...) to (B, ...).
            target: z with shape (B, ...).
            solved: x with x + g(x) = z, same shape, without gradient.
            norm: The norm that g contracts in, if it does: "inf,2" or "2".
        """


@dataclass(frozen=True)
class ImplicitAdjoint(InverseGradient):
    """The exact gradient at the solved x: grad_z = w and grad_theta = -w^T d_theta g, where (I + J)^T w = v.

    w <- v - J^T w converges for every contraction, by the factor L in the dual norm; slow samples are mixed, and
    where J is no contraction (uncertified recipes) GMRES takes over. Memory does not depend on the number of steps of
    the solver, nor on those of the adjoint: only x is kept. The gradient can be differentiated again, any number of
    times; torch.func.vjp, jvp, grad, jacrev and vmap work.

    Attributes:
        max_steps: The largest number of steps of each linear equation.
        rtol: Its relative tolerance; None is 1e-12 in float64 and 1e-6 in float32.

    Raises:
        ConvergenceError: In backward, if a linear equation cannot be solved.

    References:
        docs/theory.md, "Consequences"; Bai et al. 2019 (implicit layers).
    """

    max_steps: int = 500
    rtol: float | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative; got {self.max_steps}.")

    def __call__(self, branch: nn.Module, target: Tensor, solved: Tensor, *, norm: str = "inf,2") -> Tensor:
        if plain_autograd() and not torch.is_grad_enabled():
            return solved
        explicit, values = explicit_branch(branch, target)
        shared = _Shared(explicit, norm, self.max_steps, self.rtol)
        return _implicit_inverse(shared, target, solved, values)


@dataclass(frozen=True)
class Unrolled(InverseGradient):
    """Autograd through explicit Picard steps x <- z - g(x) from the solved x.

    The value stays the solver's; the gradient is the Neumann series of (I + J)^{-1} cut after ``steps`` terms, off by
    at most L^steps of it: right for contractions only. Every step keeps its graph: memory grows with ``steps``. For
    comparison, and for short series as a cheap gradient.

    Attributes:
        steps: Picard steps that are differentiated, at least 1.
    """

    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}.")

    def __call__(self, branch: nn.Module, target: Tensor, solved: Tensor, *, norm: str = "inf,2") -> Tensor:
        wanted = target.requires_grad or any(value.requires_grad for value in named_inputs(branch).values())
        if not transforms_active() and not (wanted and torch.is_grad_enabled()):
            return solved
        x = solved
        with held_estimates(branch):
            for _ in range(self.steps):
                x = target - branch(x)
        return x + (solved - x).detach()


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all derivatives of one inverse share.

    Attributes:
        branch: g as a function of x and the parameters.
        norm: Name of the norm that J contracts in, if it does.
        max_steps: The largest number of steps of a linear equation.
        rtol: Its relative tolerance; None is 1e-12 in float64 and 1e-6 in float32.
    """

    branch: ExplicitBranch
    norm: str
    max_steps: int
    rtol: float | None


def _implicit_inverse(shared: _Shared, target: Tensor, solved: Tensor, values: list[Tensor]) -> Tensor:
    """Return the solved x, x + g(x) = z, as a differentiable function of z and the parameters."""
    result: Tensor = _Inverse.apply(target, solved, shared, *values)  # type: ignore[no-untyped-call]
    return result


def _solve_linear(
    shared: _Shared, incoming: Tensor, x: Tensor, values: Sequence[Tensor], *, transposed: bool
) -> Tensor:
    """Return (I + J)^{-T} v, or (I + J)^{-1} u, as a differentiable function of the vector, x and the parameters."""
    result: Tensor = _Linear.apply(incoming, x, shared, transposed, *values)  # type: ignore[no-untyped-call]
    return result


class _Inverse(torch.autograd.Function):
    """x(z, theta): backward w = (I + J)^{-T} v, grad_z = w, grad_theta = -w^T d_theta g."""

    @staticmethod
    def forward(target: Tensor, solved: Tensor, shared: _Shared, *values: Tensor) -> Tensor:
        return solved.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.shared = inputs[2]
        ctx.save_for_backward(output, *inputs[3:])
        ctx.save_for_forward(output, *inputs[3:])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        x, *values = ctx.saved_tensors
        adjoint = _solve_linear(ctx.shared, incoming[0], x, values, transposed=True)
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
            return _solve_linear(ctx.shared, _minus(tangents[0], push), x, values, transposed=False)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, target: Tensor, solved: Tensor, shared: _Shared, *values: Tensor
    ) -> tuple[Tensor, int]:
        def call(z: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
            return _implicit_inverse(shared, z, x, list(parameters))

        return _mapped(call, info.batch_size, in_dims[:2], in_dims[3:], (target, solved), values)


class _Linear(torch.autograd.Function):
    """w with (I + J)^T w = v (transposed), or y with (I + J) y = u, as a function of v or u, x and theta.

    Its backward solves the other equation for the incoming gradient, and pulls -<w, J y> back to x and theta.
    """

    @staticmethod
    def forward(incoming: Tensor, x: Tensor, shared: _Shared, transposed: bool, *values: Tensor) -> Tensor:
        apply = (shared.branch.transposed if transposed else shared.branch.pushed)(x, values)
        norm = (get_dual_norm if transposed else get_norm)(shared.norm)
        return solve_contraction(apply, incoming, norm=norm, max_steps=shared.max_steps, rtol=shared.rtol)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.shared, ctx.transposed = inputs[2:4]
        ctx.save_for_backward(output, inputs[1], *inputs[4:])
        ctx.save_for_forward(output, inputs[1], *inputs[4:])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        own, x, *values = ctx.saved_tensors
        other = _solve_linear(ctx.shared, incoming[0], x, values, transposed=not ctx.transposed)
        adjoint, tangent = (own, other) if ctx.transposed else (other, own)
        by_x, *products = ctx.shared.branch.pull_tangent(-adjoint, tangent, x, values)
        return other, by_x, None, None, *products

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return (I + J)^{-T} (dv - (dJ)^T w), or (I + J)^{-1} (du - dJ y)."""
        with outer_tangents():
            own, x, *values = (own_primal(tensor) for tensor in ctx.saved_tensors)
            branch: ExplicitBranch = ctx.shared.branch

            def product(point: Tensor, *parameters: Tensor) -> Tensor:
                if ctx.transposed:
                    return branch.pull(own, point, parameters)[0]
                return _push(branch, (point, *parameters), (own, *(None for _ in parameters)))

            push = _push(product, (x, *values), (tangents[1], *tangents[4:]))
            return _solve_linear(ctx.shared, _minus(tangents[0], push), x, values, transposed=ctx.transposed)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, incoming: Tensor, x: Tensor, shared: _Shared, transposed: bool, *values: Tensor
    ) -> tuple[Tensor, int]:
        def call(vector: Tensor, point: Tensor, *parameters: Tensor) -> Tensor:
            return _solve_linear(shared, vector, point, parameters, transposed=transposed)

        return _mapped(call, info.batch_size, in_dims[:2], in_dims[4:], (incoming, x), values)


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
