"""Options of the solvers, and the parts the laws do not reach."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from invattn import Solution, Status
from invattn._conditions import PerSample
from invattn.bijections import ConstantMemory
from invattn.flows import ResidualFlow
from invattn.solvers import Adaptive, Anderson, NewtonKrylov, Picard
from invattn.solvers.anderson import AndersonStepper
from invattn.solvers.driver import SolveState


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


def tolerance(target: Tensor, *, atol: float | None = None, rtol: float | None = None) -> Tensor:
    return SolveState(target, target, atol=atol, rtol=rtol, norm="inf,2").tolerance


@pytest.mark.parametrize(("dtype", "default"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_default_tolerance(dtype: torch.dtype, default: float) -> None:
    target = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[300.0, 400.0]]], dtype=dtype)
    expected = torch.tensor([default * 6, default, default * 501], dtype=dtype)
    torch.testing.assert_close(tolerance(target), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tolerance_is_never_below_eight_ulp(dtype: torch.dtype) -> None:
    target = torch.tensor([[[1.5]], [[1e6]]], dtype=dtype)
    eps = torch.finfo(dtype).eps
    expected = torch.tensor([8 * eps, 8 * eps * 2**19], dtype=dtype)
    assert torch.equal(tolerance(target, atol=0.0, rtol=0.0), expected)


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_near_zero_whose_inputs_are_not_are_drawn(channels: int) -> None:
    """With atol = 0 the tolerance of z near 0 is below the rounding of x + g(x): it must not be asked for."""
    for seed in range(8):
        torch.manual_seed(seed)
        flow = ResidualFlow(channels)
        assert flow.sample((2000,)).shape == (2000, channels)


def test_a_backward_pass_recovers_such_samples_from_their_images() -> None:
    for seed in range(6):
        torch.manual_seed(seed)
        chain = ConstantMemory(ResidualFlow(1).bijection)
        z, log_det = chain.forward_and_log_det(torch.randn(512, 1))
        (z.square().sum() - log_det.sum()).backward()


@pytest.mark.parametrize("solver", [Picard, Anderson, Adaptive, NewtonKrylov])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_residual_at_the_rounding_of_x_and_of_g_has_converged(
    solver: type[Picard] | type[Anderson] | type[Adaptive] | type[NewtonKrylov], dtype: torch.dtype
) -> None:
    """z is up to 1e9 times smaller than x and g(x)."""
    z = torch.tensor([1e-9, 1e-7, 1e-3, 1e-1, 1.0, 1e4], dtype=dtype)[:, None]
    solution = solver(atol=0, rtol=0).solve(lambda x: 0.5 * x.sin() + 1, z, lipschitz=0.5)
    assert solution.converged.all()
    assert int(solution.num_steps.max()) < 80
    size = torch.maximum(solution.value.abs(), z.abs()).clamp_min(1.5)[:, 0]
    assert (solution.residual <= 8 * torch.finfo(dtype).eps * size).all()


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


def test_the_history_is_written_into_the_same_space_at_every_step() -> None:
    matrix = torch.diag(torch.tensor([0.9, -0.5, 0.3], dtype=torch.float64))
    b = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    stepper, x, places = AndersonStepper(depth=2, patience=None), b, []
    for _ in range(6):
        defect = b - x - x @ matrix.mT
        x = stepper.propose(x, defect, defect.norm(dim=1), torch.full((1,), 1e-12, dtype=torch.float64))
        if stepper._history is not None:
            places.append((stepper._history._changes.data_ptr(), stepper._history._steps.data_ptr()))
    assert len(places) == 5
    assert len(set(places)) == 1


@pytest.mark.parametrize("depth", [1, 5])
def test_slow_samples_are_mixed_at_any_depth(depth: int) -> None:
    """x -> -0.9 x: the ratio predicts over a hundred plain steps, one difference is all that mixing needs."""
    solution = Adaptive(depth=depth).solve(lambda x: 0.9 * x, torch.ones(2, 3, 1, dtype=torch.float64))
    assert solution.converged.all()
    assert int(solution.evaluations.max()) <= 8


def test_a_sample_that_has_ended_is_not_evaluated_again() -> None:
    """Each sample has its own speed; the evaluations that the report counts are those that were made."""
    speed = torch.tensor([0.0, 0.1, 0.5, 0.9], dtype=torch.float64).view(4, 1, 1)
    rows: list[int] = []

    def counted(x: Tensor, own: Tensor) -> Tensor:
        rows.append(x.shape[0])
        return own * x.sin()

    solution = Picard(max_steps=400).solve(PerSample(counted, speed), torch.ones(4, 2, 1, dtype=torch.float64))
    assert solution.converged.all()
    assert sum(rows) == int(solution.evaluations.sum())
    assert solution.evaluations.tolist() == sorted(solution.evaluations.tolist())
    exact = solution.value + speed * solution.value.sin()
    assert float((exact - 1).abs().max()) <= 4e-12


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


def test_newton_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="got -1 and 2"):
        NewtonKrylov(max_steps=-1)
    with pytest.raises(ValueError, match="got 30 and -1"):
        NewtonKrylov(restarts=-1)
    with pytest.raises(ValueError, match="krylov must be at least 1; got 0"):
        NewtonKrylov(krylov=0)


def turning(tokens: Tensor) -> Tensor:
    """A nonlinear map whose Jacobian has eigenvalues near 2 and -3 everywhere: Picard iteration runs away."""
    matrix = torch.tensor([[2.0, 1.0], [0.0, -3.0]], dtype=tokens.dtype)
    return tokens @ matrix.mT + 0.1 * torch.sin(tokens)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-11), (torch.float32, 1e-5)], ids=str)
def test_newton_inverts_where_picard_runs_away(dtype: torch.dtype, error: float) -> None:
    x = torch.randn(6, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    z = x + turning(x)
    assert not Picard().solve(turning, z).converged.any()
    samples: list[int] = []

    def counted(tokens: Tensor) -> Tensor:
        samples.append(tokens.shape[0])
        return turning(tokens)

    solution = NewtonKrylov().solve(counted, z)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, x, rtol=error, atol=error)
    assert int(solution.num_steps.max()) <= 8
    assert sum(samples) == int(solution.evaluations.sum())
    assert solution.error_bound is None


def test_newton_converges_quadratically_once_it_is_near() -> None:
    """The equations are solved ever better as it comes near: each residual is about the square of the one before."""
    x = torch.randn(1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def bent(tokens: Tensor) -> Tensor:
        return turning(tokens) + tokens.square()

    z = x + bent(x)
    sizes = [float(NewtonKrylov(max_steps=n).solve(bent, z, start=x + 0.3).residual) for n in range(2, 6)]
    for before, after in itertools.pairwise(sizes):
        assert after <= max(10 * before**2, 1e-13)


def test_a_sample_without_a_solution_stalls_at_its_nearest_point_and_the_others_go_on() -> None:
    """x + g(x) = x^2 + 1 is never below 1: the nearest to z = 0 is x = 0."""
    z = torch.tensor([0.0, 5.0, torch.nan], dtype=torch.float64).view(3, 1, 1)
    start = torch.tensor([0.7, 1.5, 1.0], dtype=torch.float64).view(3, 1, 1)
    solution = NewtonKrylov(max_steps=60).solve(lambda t: t.square() + 1 - t, z, start=start)
    assert solution.status.tolist() == [Status.STALLED, Status.CONVERGED, Status.NON_FINITE]
    assert solution.failures() == "1 non_finite, 1 stalled"
    assert abs(float(solution.value[0])) < 0.1
    assert float(solution.residual[0]) == pytest.approx(1, abs=0.01)
    assert float(solution.value[1]) == pytest.approx(2, abs=1e-11)


def test_a_newton_step_is_halved_where_it_overshoots() -> None:
    """From x = 3 the full step of arctan goes to -9 and on to infinity; halved it comes to 0."""
    solution = NewtonKrylov().solve(
        lambda t: torch.arctan(t) - t, torch.zeros(2, 1, 1), start=torch.full((2, 1, 1), 3.0)
    )
    assert solution.converged.all()
    assert float(solution.value.abs().max()) < 1e-5
    assert (solution.evaluations > 1 + 2 * solution.num_steps).all()


def test_newton_keeps_the_precision_of_the_target_under_autocast() -> None:
    """Products in bfloat16 round x + g(x) to some 3 digits: a tolerance of 2 percent is within reach."""
    weight = torch.tensor([[2.0, 1.0], [0.0, -3.0]])
    z = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        solution = NewtonKrylov(atol=0.02, rtol=0.02).solve(lambda t: torch.nn.functional.linear(t, weight), z)
    assert solution.value.dtype == torch.float32
    assert solution.converged.all()
