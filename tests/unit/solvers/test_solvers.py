"""Options of the solvers, and the parts the laws do not reach."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn import Solution, Status
from invattn.solvers import Adaptive, Anderson, Picard
from invattn.solvers.steppers import AndersonStepper
from invattn.solvers.tolerance import Tolerance


@pytest.mark.parametrize("make", [Picard, Anderson, Adaptive])
def test_a_negative_number_of_steps_is_refused(make: type[Picard] | type[Anderson] | type[Adaptive]) -> None:
    with pytest.raises(ValueError, match="max_steps must not be negative; got -1"):
        make(max_steps=-1)


@pytest.mark.parametrize("make", [Anderson, Adaptive])
def test_a_depth_below_one_is_refused(make: type[Anderson] | type[Adaptive]) -> None:
    with pytest.raises(ValueError, match="depth must be at least 1; got 0"):
        make(depth=0)


def test_negative_patience_and_refinement_are_refused() -> None:
    with pytest.raises(ValueError, match="got -1 and 0"):
        Adaptive(patience=-1)
    with pytest.raises(ValueError, match="got 4 and -2"):
        Adaptive(refine=-2)


@pytest.mark.parametrize(("dtype", "default"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_default_tolerance(dtype: torch.dtype, default: float) -> None:
    target = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[300.0, 400.0]]], dtype=dtype)
    expected = torch.tensor([default * 6, default, default * 501], dtype=dtype)
    torch.testing.assert_close(Tolerance()(target), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tolerance_is_never_below_eight_ulp(dtype: torch.dtype) -> None:
    target = torch.tensor([[[1.5]], [[1e6]]], dtype=dtype)
    eps = torch.finfo(dtype).eps
    expected = torch.tensor([8 * eps, 8 * eps * 2**19], dtype=dtype)
    assert torch.equal(Tolerance(atol=0.0, rtol=0.0)(target), expected)


def test_failures_are_counted_in_words() -> None:
    status = torch.tensor([Status.CONVERGED, Status.MAX_STEPS, Status.DIVERGED, Status.MAX_STEPS, Status.NON_FINITE])
    part = torch.zeros(5)
    solution = Solution(
        value=part, converged=status == 0, residual=part, num_steps=part.long(), error_bound=None, status=status
    )
    assert solution.failures() == "2 max_steps, 1 diverged, 1 non_finite"
    moved = solution.with_value(torch.ones(5))
    assert torch.equal(moved.value, torch.ones(5))
    assert moved.status is status


def linear(matrix: Tensor) -> Tensor:
    """Iterate x <- b - A x by mixing until the defect is at rounding; return how the defects fell."""
    b = torch.ones(1, matrix.shape[0], dtype=torch.float64)
    stepper, x, sizes = AndersonStepper(depth=5, patience=None), b, []
    for _ in range(12):
        defect = b - x - x @ matrix.mT
        sizes.append(defect.norm(dim=1))
        x = stepper.propose(x, defect, sizes[-1], torch.full((1,), 1e-12, dtype=torch.float64))
    return torch.cat(sizes)


def test_mixing_solves_a_small_linear_system_in_as_many_steps_as_it_has_unknowns() -> None:
    """Anderson mixing is GMRES there: an eigenvalue of 1.5, at which plain steps diverge, does not matter."""
    sizes = linear(torch.diag(torch.tensor([0.9, -0.5, 1.5], dtype=torch.float64)))
    assert float(sizes[6]) < 1e-6 * float(sizes[0])


def test_rows_that_are_dropped_take_their_history_with_them() -> None:
    """The surviving row goes on as it would have alone."""
    matrix = torch.diag(torch.tensor([0.9, -0.5, 0.3], dtype=torch.float64))
    targets = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=torch.float64)
    tolerance = torch.full((2,), 1e-12, dtype=torch.float64)
    together, alone = AndersonStepper(depth=3, patience=None), AndersonStepper(depth=3, patience=None)
    AndersonStepper(depth=3, patience=None).keep(torch.tensor([True]))  # nothing to drop yet
    rows = torch.tensor([True, True])
    x, y = targets, targets[1:]
    for step in range(6):
        if step == 3:
            rows = torch.tensor([False, True])
            together.keep(rows)
            x = x[rows]
        defect = targets[rows] - x - x @ matrix.mT
        x = together.propose(x, defect, defect.norm(dim=1), tolerance[rows])
        defect = targets[1:] - y - y @ matrix.mT
        y = alone.propose(y, defect, defect.norm(dim=1), tolerance[1:])
        torch.testing.assert_close(x[-1:], y, rtol=1e-12, atol=1e-12)


def test_a_mixed_step_that_does_harm_is_taken_back() -> None:
    """A map with a kink behind which mixing extrapolates wrongly: the defect returned never rises."""

    def kinked(x: Tensor) -> Tensor:
        left = 0.6 / 8 * torch.sin(8 * x.clamp_max(0.3))
        return left - 0.95 * (x - 0.3).clamp_min(0)

    target = torch.linspace(-1, 1, 40, dtype=torch.float64).view(40, 1, 1)
    for solver in (Anderson(), Adaptive(), Anderson(depth=1)):
        solution = solver.solve(kinked, target)
        assert solution.converged.all()
        residual = (solution.value + kinked(solution.value) - target).abs().flatten()
        assert float(residual.max()) <= 2e-12
