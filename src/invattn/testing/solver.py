"""The laws of a solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.solvers import Solution, Solver, Status
from invattn.testing.oracles import evaluation_mode, require, sample_size


class _Counted:
    """A branch that counts the samples it is evaluated on."""

    def __init__(self, branch: Callable[[Tensor], Tensor]) -> None:
        self.branch = branch
        self.samples = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.samples += x.shape[0]
        return self.branch(x)


def check_solver(solver: Solver, branch: Branch, x: Tensor, *, generator: torch.Generator | None = None) -> None:
    """Check a solver on one certified branch: its report is true, whatever it found.

    The residual is recomputed, the error is compared with its bound, a NaN stays in its sample, and neither the
    start nor the other samples matter.

    Args:
        solver: The solver.
        branch: A certified branch; evaluated in evaluation mode.
        x: What to recover: (B, N, C), (B, C, H, W) or (B, C), B >= 2.
        generator: Where the distant start comes from; None is torch's default generator.

    Raises:
        AssertionError: If a law is broken.
    """
    with evaluation_mode(branch), torch.no_grad():
        g = branch.at_present_weights()
        z = x + g(x)
        bound = branch.lipschitz_bound()
        proven: dict[str, Any] = {"lipschitz": bound.value, "norm": bound.norm}
        kept, counted = z.clone(), _Counted(g)
        solution = solver.solve(counted, z, **proven)
        require(torch.equal(z, kept), "the solver changed its target.")
        reported = int(solution.evaluations.sum())
        require(counted.samples == reported, f"g was evaluated on {counted.samples} samples; {reported} were reported.")
        _check_report(g, z, solution, bound.norm)
        _check_error(solution, x, bound.norm, "from the usual start")
        _check_non_finite(solver, g, x, z, proven)
        far = z + 1e3 * torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        for start, words in ((torch.zeros_like(z), "from zero"), (far, "from a distant start")):
            other = solver.solve(g, z, start=start, **proven)
            _check_report(g, z, other, bound.norm)
            _check_error(other, x, bound.norm, words)
        _check_error(solver.solve(g, z[:1], **proven), x[:1], bound.norm, "alone")
        unbounded = solver.solve(g, z, norm=bound.norm)
        require(unbounded.error_bound is None, "an error bound was given without a Lipschitz bound.")


def _check_report(branch: Callable[[Tensor], Tensor], z: Tensor, solution: Solution, norm: str) -> None:
    require(
        solution.value.shape == z.shape and solution.value.dtype == z.dtype, "the value has another shape or dtype."
    )
    residual = sample_size(solution.value + branch(solution.value) - z, norm=norm)
    scale = sample_size(z, norm=norm) + sample_size(solution.value, norm=norm)
    slack = 16 * torch.finfo(z.dtype).eps * scale
    worst = float(((solution.residual - residual).abs() - slack).max())
    require(worst <= 0, "the reported residual is not that of the returned value.")
    agree = solution.converged == (solution.status == int(Status.CONVERGED))
    require(agree.all(), "status and converged contradict each other.")


def _check_error(solution: Solution, x: Tensor, norm: str, words: str) -> None:
    require(solution.error_bound is not None, "no error bound was given with a Lipschitz bound.")
    assert solution.error_bound is not None
    excess = float((sample_size(solution.value - x, norm=norm) - solution.error_bound).max())
    require(excess <= 0, f"{words}, the error exceeds its bound by {excess:.3g}.")


def _check_non_finite(
    solver: Solver, branch: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, proven: dict[str, Any]
) -> None:
    damaged = z.clone()
    damaged[(0,) * damaged.dim()] = torch.nan
    solution = solver.solve(branch, damaged, **proven)
    require(int(solution.status[0]) == int(Status.NON_FINITE), "a sample with a NaN is not reported as non-finite.")
    require(not solution.converged[0], "a sample with a NaN is reported as converged.")
    alone = solver.solve(branch, z[1:], **proven)
    require(torch.equal(alone.status, solution.status[1:]), "a NaN in one sample changed the status of another.")
    rest = Solution(*(None if part is None else part[1:] for part in vars(solution).values()))  # type: ignore[arg-type]
    _check_error(rest, x[1:], proven["norm"], "beside a sample with a NaN")
