"""Every solver reports the truth about what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from invattn import ConvergenceError, Status
from invattn.branches import Branch
from invattn.solvers import Adaptive, Anderson, Picard, Solution, Solver
from invattn.testing import check_solver

from .registry import (
    CHANNELS,
    PLAIN_CERTIFIED,
    SOLVERS,
    SOME_CHAINS,
    AnyCase,
    BlockCase,
    random_tokens,
    seeded,
    with_max_steps,
)

every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
EARLY = {name: solver for name, solver in SOLVERS.items() if name != "picard_exact"}
every_early_solver = pytest.mark.parametrize("solver", EARLY.values(), ids=EARLY.keys())


def size(tokens: Tensor) -> Tensor:
    """max_i |x_i|_2 in float64, written out."""
    return tokens.detach().double().square().sum(dim=2).sqrt().amax(dim=1)


def slow_branch(lipschitz: float = 0.99) -> Branch:
    """A certified branch that is nearly g(x) = -L x near zero: plain steps divide the error by L only."""
    branch = BlockCase("pointwise").branch(lipschitz=lipschitz)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.zero_()
        branch.get_submodule("value").get_parameter("weight").copy_(torch.eye(CHANNELS))
        branch.get_submodule("output").get_parameter("weight").copy_(-9 * torch.eye(CHANNELS))
    return branch


def solve(solver: Solver, branch: Branch, z: Tensor, **options: Any) -> Solution:
    return solver.solve(branch, z, lipschitz=branch.lipschitz_bound().value, **options)


@every_solver
@pytest.mark.parametrize("case", [*PLAIN_CERTIFIED, *SOME_CHAINS], ids=str)
def test_solver(solver: Solver, case: AnyCase) -> None:
    check_solver(solver, case.branch(seed=1), case.inputs(), generator=seeded(0))


@every_solver
def test_solver_on_a_slow_branch(solver: Solver) -> None:
    check_solver(solver, slow_branch(0.9), random_tokens(scale=0.3), generator=seeded(0))


@every_solver
def test_solver_in_single_precision(solver: Solver) -> None:
    branch = BlockCase("embedded_gaussian", num_heads=2).branch(seed=2).float()
    check_solver(solver, branch, random_tokens(dtype=torch.float32), generator=seeded(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["picard", "anderson", "adaptive", "newton_krylov"])
@pytest.mark.parametrize("kind", ["concatenation", "slow"])
def test_residual_and_error_bound_hold_at_every_number_of_steps(kind: str, name: str, dtype: torch.dtype) -> None:
    branch = (slow_branch(0.97) if kind == "slow" else BlockCase(kind).branch(seed=3)).to(dtype)
    x = random_tokens(4, dtype=torch.float64)
    with torch.no_grad():
        z = (x.to(dtype) + branch(x.to(dtype))).to(dtype)
        # The exact inverse of the rounded z, as near as double precision comes.
        reference = Adaptive(atol=0.0, rtol=0.0, refine=3).solve(branch.double(), z.double()).value
        branch = branch.to(dtype)
        tolerance = (1e-12 if dtype == torch.float64 else 1e-6) * (1 + size(z))
        previous = torch.full((4,), torch.inf, dtype=torch.float64)
        for max_steps in range(31):
            solution = solve(with_max_steps(SOLVERS[name], max_steps), branch, z)
            assert solution.error_bound is not None
            assert (size(solution.value - reference) <= solution.error_bound).all()
            recomputed = size(solution.value + branch(solution.value) - z)
            assert ((solution.residual - recomputed).abs() <= 32 * torch.finfo(dtype).eps * size(z)).all()
            assert int(solution.num_steps.max()) <= max_steps
            # No more is asked for than the rounding of z, x and g(x) lets be reached: 8 ulp of the largest.
            largest = torch.stack([size(z), size(solution.value), size(z - solution.value)]).amax(dim=0)
            limit = torch.maximum(tolerance, 8 * torch.finfo(dtype).eps * torch.exp2(largest.log2().floor()))
            expected = [Status.CONVERGED if reached else Status.MAX_STEPS for reached in solution.residual <= limit]
            assert solution.status.tolist() == expected
            assert solution.converged.tolist() == [status == Status.CONVERGED for status in expected]
            assert (solution.residual.double() <= previous).all()  # the best point is returned, never a later worse one
            previous = solution.residual.double()


@pytest.mark.parametrize("lipschitz", [0.1, 0.9])
def test_the_error_bound_holds_at_full_convergence_because_it_has_a_rounding_term(lipschitz: float) -> None:
    """At the last bit the residual may be 0 while the error is not: residual / (1 - L) alone would be no bound."""
    branch = BlockCase("embedded_gaussian").branch(seed=12, lipschitz=lipschitz)
    with torch.no_grad():
        x = random_tokens(300, scale=3.0)
        z = (x + branch(x)).float()
        solution = solve(Picard(max_steps=80, early_stop=False), branch.float(), z)
        # The reference has the rounded weights and the rounded target, and 8 more digits than float32.
        exact = Adaptive(atol=0.0, rtol=0.0).solve(branch.double(), z.double()).value
    assert solution.error_bound is not None
    error = size(solution.value.double() - exact)
    assert (error <= solution.error_bound).all()
    if lipschitz == 0.1:  # at 0.9 the division by 1 - L hides it
        assert (error > solution.residual.double() / (1 - lipschitz)).any()


@every_early_solver
@pytest.mark.parametrize("kind", ["gaussian", "concatenation"])
def test_every_start_leads_to_the_same_point(solver: Solver, kind: str) -> None:
    branch, x = BlockCase(kind).branch(seed=4), random_tokens()
    with torch.no_grad():
        z = x + branch(x)
    noise = 1e6 * torch.randn(z.shape, dtype=z.dtype, generator=seeded(5))
    for start in (torch.zeros_like(z), z, z + noise):
        solution = solve(solver, branch, z, start=start)
        assert solution.converged.all()
        assert float(size(solution.value - x).max()) <= 1e-10


@every_early_solver
def test_a_stricter_or_looser_tolerance_is_obeyed(solver: Solver) -> None:
    branch, x = slow_branch(0.9), random_tokens()
    z = (x + branch(x)).detach()
    steps = []
    for rtol in (1e-2, 1e-5, 1e-9):
        object.__setattr__(chosen := with_max_steps(solver, 500), "rtol", rtol)
        object.__setattr__(chosen, "atol", 0.0)
        solution = solve(chosen, branch, z)
        assert solution.converged.all()
        # A rule that compared a squared residual with a linear tolerance would leave one of about sqrt(rtol).
        assert (solution.residual <= rtol * size(z)).all()
        steps.append(int(solution.num_steps.max()))
    assert steps[0] < steps[1] < steps[2]


@every_solver
def test_a_non_finite_sample_stays_alone(solver: Solver) -> None:
    branch, x = BlockCase("dot_product").branch(seed=6), random_tokens(4)
    z = (x + branch(x)).detach()
    alone = [solve(solver, branch, z[i : i + 1]) for i in range(4)]
    for damage in (torch.nan, torch.inf):
        damaged = z.clone()
        damaged[2, 1, 3] = damage
        solution = solve(solver, branch, damaged)
        assert solution.status.tolist() == [0, 0, int(Status.NON_FINITE), 0]
        assert solution.converged.tolist() == [True, True, False, True]
        for i in (0, 1, 3):
            assert int(alone[i].num_steps[0]) == int(solution.num_steps[i])
            torch.testing.assert_close(solution.value[i], alone[i].value[0], rtol=1e-11, atol=1e-11)
        assert solution.failures() == "1 non_finite"


def test_inverse_raises_and_says_how_many_failed_and_what_to_try() -> None:
    block = BlockCase("concatenation").block(seed=7, solver=Picard(max_steps=1))
    z = block(random_tokens(3)).detach()
    z[0] = torch.nan
    with pytest.raises(
        ConvergenceError, match=r"3 of 3 samples .*2 max_steps, 1 non_finite.*inf.*max_steps or a larger"
    ):
        block.inverse(z)
    relaxed = BlockCase("dot_product", "unconstrained").block(seed=7)
    with pytest.raises(ConvergenceError, match=r"of 3 samples .* no certificate .*recipe='certified'.*App. C"):
        relaxed.inverse(random_tokens(3, scale=30))


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("recipe", ["certified", "released"])
def test_exact_picard_is_algorithm_1(recipe: str, steps: int) -> None:
    branch, z = BlockCase("embedded_gaussian", recipe).branch(seed=8), random_tokens()
    x = z
    with torch.no_grad():
        for _ in range(steps):
            x = z - branch(x)
        calls: list[int] = []

        def counted(tokens: Tensor) -> Tensor:
            calls.append(tokens.shape[0])
            return branch(tokens)

        solution = Picard(max_steps=steps, early_stop=False, atol=1.0, rtol=1.0).solve(counted, z)
    assert calls == [3] * (steps + 1)
    assert solution.num_steps.tolist() == [steps] * 3
    assert solution.evaluations.tolist() == [steps + 1] * 3
    torch.testing.assert_close(solution.value, x, rtol=1e-12, atol=1e-12)


def test_finished_samples_are_not_evaluated_again() -> None:
    """A sample that the branch maps to a constant is done after one step; the slow one goes on alone."""
    slow = slow_branch()
    rows: list[int] = []

    def mixed(tokens: Tensor) -> Tensor:
        rows.append(tokens.shape[0])
        far = tokens.abs().amax(dim=(1, 2), keepdim=True) > 100
        return torch.where(far, 1.0, slow(tokens))

    z = random_tokens(2, scale=0.1)
    z[0] += 1000
    with torch.no_grad():
        solution = Picard(max_steps=15).solve(mixed, z)
    assert rows[:3] == [2, 2, 1]
    assert set(rows[2:]) == {1}
    assert solution.num_steps.tolist() == [1, 15]
    assert solution.status.tolist() == [int(Status.CONVERGED), int(Status.MAX_STEPS)]


@every_early_solver
def test_a_map_that_runs_away_is_reported_as_diverged_or_non_finite(solver: Solver) -> None:
    z = random_tokens(2)
    cases: list[tuple[Callable[[Tensor], Tensor], Status]] = [
        (lambda t: 3 * t, Status.DIVERGED),
        (torch.square, Status.DIVERGED),
        (lambda t: (10 * t.abs()).exp(), Status.NON_FINITE),
    ]
    for function, status in cases:
        solution = with_max_steps(solver, 40).solve(function, 5 + z.abs())
        if isinstance(solver, Picard):
            assert solution.status.tolist() == [int(status)] * 2
            assert not solution.converged.any()
        else:  # mixing may find the solution all the same: then it must be one
            value = solution.value[solution.converged]
            residual = size(value + function(value) - (5 + z.abs())[solution.converged])
            assert bool((residual < 1e-9).all())


def test_exact_picard_on_a_growing_map_ends_as_diverged() -> None:
    solution = Picard(max_steps=5, early_stop=False).solve(lambda t: 3 * t, random_tokens(2))
    assert solution.status.tolist() == [int(Status.DIVERGED)] * 2
    assert solution.num_steps.tolist() == [5, 5]


def test_mixing_is_far_quicker_where_plain_steps_are_slow() -> None:
    branch, x = slow_branch(0.95), random_tokens(scale=0.03)
    z = (x + branch(x)).detach()
    picard = solve(Picard(max_steps=1000), branch, z)
    for solver in (Anderson(), Adaptive()):
        solution = solve(solver, branch, z)
        assert solution.converged.all()
        assert int(solution.num_steps.max()) * 10 < int(picard.num_steps.min())


def test_adaptive_takes_plain_steps_where_they_are_quick() -> None:
    branch, x = BlockCase("embedded_gaussian").branch(seed=9, lipschitz=0.05), random_tokens()
    z = (x + branch(x)).detach()
    plain, adaptive = solve(Picard(), branch, z), solve(Adaptive(), branch, z)
    assert torch.equal(plain.value, adaptive.value)
    assert torch.equal(plain.num_steps, adaptive.num_steps)


def test_refining_takes_further_steps_and_lowers_the_error() -> None:
    branch, x = BlockCase("embedded_gaussian").branch(seed=10), random_tokens()
    z = (x + branch(x)).detach()
    errors, steps = [], []
    for refine in (0, 2):
        solution = solve(Adaptive(refine=refine, atol=1e-3, rtol=1e-3), branch, z)
        errors.append(float(size(solution.value - x).max()))
        steps.append(solution.num_steps)
    assert torch.equal(steps[1], steps[0] + 2)
    assert errors[1] < 0.5 * errors[0]


def test_the_target_may_require_a_gradient_and_gets_none() -> None:
    branch, z = BlockCase("gaussian").branch(seed=11), random_tokens().requires_grad_()
    for solver in SOLVERS.values():
        solution = solver.solve(branch, z)
        assert not solution.value.requires_grad
        assert not solution.residual.requires_grad
