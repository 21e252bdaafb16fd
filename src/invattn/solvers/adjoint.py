"""Gradients through an inverse by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invattn._errors import ConvergenceError
from invattn.lipschitz import held_estimates
from invattn.norms import token_norm
from invattn.solvers.steppers import AndersonStepper

_MAX_STEPS = 500


def attach_gradient(branch: Callable[[Tensor], Tensor], target: Tensor, solved: Tensor) -> Tensor:
    """Return the solved value with the gradient of the exact inverse.

    For x = f^{-1}(z) and an incoming v, grad_z = w and grad_theta = -w^T d_theta g, where (I + J)^T w = v is solved
    by the same iteration, one vector-Jacobian product a step; memory does not depend on the number of steps.

    Args:
        branch: g.
        target: z with shape (B, N, C).
        solved: x with x + g(x) = z, same shape, without gradient.

    Returns:
        A tensor equal to ``solved`` whose gradient reaches z and the parameters of g. First order only: a second
        differentiation raises RuntimeError.

    References:
        docs/certificate.md, "Consequences"; Bai et al. 2019 (implicit layers).
    """
    point = solved.detach().requires_grad_()
    with held_estimates(branch):
        image = branch(point)
        stepped = target - branch(solved.detach())
    if not stepped.requires_grad:
        return solved

    def solve_adjoint(incoming: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of an inverse cannot be differentiated again; use create_graph=False.")

        def transposed(vector: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(image, point, vector, retain_graph=True)
            return product

        return _solve_adjoint(transposed, incoming)

    stepped.register_hook(solve_adjoint)  # type: ignore[no-untyped-call]
    return stepped + (solved - stepped).detach()


def _solve_adjoint(transposed: Callable[[Tensor], Tensor], incoming: Tensor) -> Tensor:
    """Iterate w <- v - J^T w, mixed where that is slow, until each residual is small against its sample's v and w."""
    relative = 1e-12 if incoming.dtype == torch.float64 else 1e-6
    solution = incoming
    residual = torch.zeros_like(token_norm(incoming))
    stepper = AndersonStepper(depth=5, patience=4)
    for _ in range(_MAX_STEPS):
        defect = incoming - solution - transposed(solution)
        residual = token_norm(defect)
        limit = relative * torch.maximum(token_norm(incoming), token_norm(solution))
        done = residual <= limit
        if bool(done.all()):
            return solution
        following = stepper.propose(solution.flatten(1), defect.flatten(1), residual, limit).view_as(solution)
        solution = torch.where(done[:, None, None], solution, following)
    raise ConvergenceError(
        f"the adjoint of the inverse did not converge in {_MAX_STEPS} steps (residual {float(residual.max()):.2g}): "
        "the branch is no contraction at this point, or hardly one. Use recipe='certified' or a smaller lipschitz."
    )
