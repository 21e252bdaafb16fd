"""The linear equation behind the gradient of an inverse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invattn._errors import ConvergenceError
from invattn.norms import token_norm
from invattn.solvers.steppers import AndersonStepper

_MAX_STEPS = 500


def solve_adjoint(transposed: Callable[[Tensor], Tensor], incoming: Tensor) -> Tensor:
    """Return w with (I + J)^T w = v for every sample, by w <- v - J^T w, mixed where that is slow.

    Args:
        transposed: The map from w to J^T w, shape (B, ...) to (B, ...).
        incoming: v with shape (B, ...), of any layout.

    Returns:
        w, each sample's residual small against its own v and w: 1e-12 in float64, 1e-6 in float32.

    Raises:
        ConvergenceError: If a sample does not get there.
    """
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
        solution = torch.where(done.reshape(-1, *(1 for _ in range(solution.dim() - 1))), solution, following)
    raise ConvergenceError(
        f"the adjoint of the inverse did not converge in {_MAX_STEPS} steps (residual {float(residual.max()):.2g}): "
        "the branch is no contraction at this point, or hardly one. Use recipe='certified' or a smaller lipschitz."
    )
