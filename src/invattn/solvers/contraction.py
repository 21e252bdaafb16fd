"""Linear equations (I + A) y = b of contractions A: what the gradient of an inverse has to solve."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invattn._errors import ConvergenceError
from invattn.solvers.anderson import AndersonStepper
from invattn.solvers.gmres import gmres

_PATIENCE = 20  # steps without a smaller defect in any unfinished sample, after which A is taken for no contraction
_KRYLOV, _RESTARTS = 50, 9  # of GMRES, for the samples that the steps leave over


def solve_contraction(
    apply: Callable[[Tensor], Tensor],
    right: Tensor,
    *,
    norm: Callable[[Tensor], Tensor],
    max_steps: int = 500,
    rtol: float | None = None,
) -> Tensor:
    """Return y with (I + A) y = b for every sample, by y <- b - A y; by GMRES where that does not get there.

    Args:
        apply: The map from y to A y, shape (B, ...) to (B, ...).
        right: b with shape (B, ...), of any layout.
        norm: The norm that A contracts in, a function of batches.
        max_steps: The largest number of steps y <- b - A y, mixed where they are slow.
        rtol: What the residual may be in units of max(|b|, |y|); None is 1e-12 in float64 and 1e-6 in float32.

    Returns:
        y; each sample's residual is small against its own b and y.

    Raises:
        ConvergenceError: If a sample does not get there.
    """
    default = 1e-12 if right.dtype == torch.float64 else 1e-6
    # A y is at most twice the larger of b and y, so that this is never below what rounding lets be reached.
    relative = max(default if rtol is None else rtol, 8 * torch.finfo(right.dtype).eps)
    solution, done = _iterate(apply, right, norm, max_steps, relative)
    if bool(done.all()):
        return solution
    krylov = _krylov(apply, right, relative)
    column = done.reshape(-1, *(1 for _ in range(right.dim() - 1)))
    solution = torch.where(column, solution, krylov)
    defect = norm(right - solution - apply(solution))
    # GMRES is given the Euclidean form of the tolerance; in another norm it may miss it by sqrt(N).
    reached = defect <= 100 * relative * torch.maximum(norm(right), norm(solution))
    if bool((done | reached).all()):
        return solution
    raise ConvergenceError(
        f"the adjoint of the inverse did not converge in {max_steps} steps, nor by GMRES (residual "
        f"{float(defect[~done].nan_to_num(nan=torch.inf).max()):.2g}): I + J is singular at this point, or nearly. Use "
        "recipe='certified' or a smaller lipschitz."
    )


def _iterate(
    apply: Callable[[Tensor], Tensor],
    right: Tensor,
    norm: Callable[[Tensor], Tensor],
    max_steps: int,
    relative: float,
) -> tuple[Tensor, Tensor]:
    """Return where the steps got to, and which samples are done, shape (B,)."""
    solution, scale = right.clone(), norm(right)
    done = torch.zeros_like(scale, dtype=torch.bool)
    best, since = torch.full_like(scale, torch.inf), 0
    stepper = AndersonStepper(depth=5, patience=4)
    for step in range(max_steps + 1):
        defect = right - solution - apply(solution)
        size = norm(defect)
        limit = relative * torch.maximum(scale, norm(solution))
        done = size <= limit
        since = 0 if bool(((size < best) & ~done).any()) else since + 1
        best = torch.minimum(best, size)
        if step == max_steps or since == _PATIENCE or bool(done.all()):
            break
        following = stepper.propose(solution.flatten(1), defect.flatten(1), size, limit).view_as(solution)
        solution = torch.where(done.reshape(-1, *(1 for _ in range(solution.dim() - 1))), solution, following)
    return solution, done


def _krylov(apply: Callable[[Tensor], Tensor], right: Tensor, relative: float) -> Tensor:
    """Solve by GMRES from zero, in units of each sample's largest entry; a product takes the whole batch."""
    entries = right.flatten(1)
    scale = entries.abs().amax(dim=1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1)

    def multiply(vectors: Tensor, rows: Tensor) -> Tensor:
        whole = torch.zeros_like(entries)
        whole[rows] = vectors
        return vectors + apply(whole.view_as(right)).flatten(1)[rows]

    units = entries / scale
    limit = relative * units.norm(dim=-1)
    solved = gmres(multiply, units, limit=limit, krylov=_KRYLOV, restarts=_RESTARTS)
    return (solved.solution * scale).view_as(right)
