"""How gradients go through an inverse: by the implicit function theorem, or through explicit steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invattn._conditions import named_inputs
from invattn.functional._transforms import transforms_active
from invattn.lipschitz import held_estimates
from invattn.solvers.contraction import LinearPlan
from invattn.solvers.implicit import Implicit, implicit_inverse
from invattn.solvers.linearisation import explicit_branch


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
        explicit, values = explicit_branch(branch, target)
        plan = LinearPlan(max_steps=self.max_steps, rtol=self.rtol)
        return implicit_inverse(Implicit(explicit, plan, norm), target, solved, values)


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
