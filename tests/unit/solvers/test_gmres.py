"""GMRES against a dense solve."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.solvers.gmres import Gmres, gmres

SIZE = 24


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def solved(matrices: Tensor, right: Tensor, *, rtol: float = 1e-12, krylov: int = SIZE, restarts: int = 0) -> Gmres:
    def multiply(vectors: Tensor, rows: Tensor) -> Tensor:
        return (matrices[rows] @ vectors[..., None])[..., 0]

    return gmres(multiply, right, limit=rtol * right.norm(dim=1), krylov=krylov, restarts=restarts)


def defect(matrices: Tensor, right: Tensor, found: Tensor) -> Tensor:
    return (right - (matrices @ found[..., None])[..., 0]).norm(dim=1)


@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("restarts", [0, 2])
def test_it_is_the_dense_solve(spread: float, restarts: int) -> None:
    matrices, right = torch.eye(SIZE, dtype=torch.float64) + spread * normal(6, SIZE, SIZE), normal(6, SIZE, seed=1)
    found = solved(matrices, right, restarts=restarts)
    wanted = torch.linalg.solve(matrices, right[..., None])[..., 0]
    condition = torch.linalg.cond(matrices)[:, None]
    assert ((found.solution - wanted).abs() <= 1e-11 * condition * wanted.norm(dim=1, keepdim=True)).all()
    assert (found.products <= (SIZE + 1) * (restarts + 1)).all()


def test_the_reported_residual_is_the_residual_and_restarts_lower_it() -> None:
    matrices, right = torch.eye(SIZE, dtype=torch.float64) + 0.15 * normal(4, SIZE, SIZE), normal(4, SIZE, seed=1)
    previous = right.norm(dim=1)
    for restarts in range(4):
        found = solved(matrices, right, krylov=5, restarts=restarts)
        torch.testing.assert_close(found.residual, defect(matrices, right, found.solution), rtol=1e-8, atol=1e-12)
        assert (found.residual < previous).all()
        previous = found.residual


def test_each_sample_stops_at_its_own_limit_and_needs_no_other() -> None:
    matrices = torch.stack(
        [torch.eye(SIZE, dtype=torch.float64) + 0.1 * k * normal(SIZE, SIZE, seed=k) for k in range(4)]
    )
    right = normal(4, SIZE, seed=9)
    rtol = torch.tensor([1e-3, 1e-6, 1e-9, 1e-12], dtype=torch.float64)
    rows_seen: list[int] = []

    def multiply(vectors: Tensor, rows: Tensor) -> Tensor:
        rows_seen.append(len(rows))
        return (matrices[rows] @ vectors[..., None])[..., 0]

    together = gmres(multiply, right, limit=rtol * right.norm(dim=1), krylov=SIZE)
    assert (together.residual <= rtol * right.norm(dim=1)).all()
    assert sum(rows_seen) == int(together.products.sum())
    assert together.products.tolist() == sorted(together.products.tolist())
    for k in range(4):
        alone = solved(matrices[k : k + 1], right[k : k + 1], rtol=float(rtol[k]), restarts=3)
        assert int(alone.products[0]) == int(together.products[k])
        torch.testing.assert_close(alone.solution[0], together.solution[k], rtol=1e-10, atol=1e-10)


def test_matrices_without_a_solution_leave_the_least_residual() -> None:
    matrices = torch.zeros(4, SIZE, SIZE, dtype=torch.float64)
    matrices[1] = torch.diag(torch.arange(SIZE, dtype=torch.float64))  # singular: the first entry is out of reach
    matrices[2] = 2 * torch.eye(SIZE, dtype=torch.float64)
    right = normal(4, SIZE)
    right[3] = 0
    found = solved(matrices, right, restarts=1)
    assert (found.residual <= right.norm(dim=1) * (1 + 1e-12)).all()
    torch.testing.assert_close(found.residual, defect(matrices, right, found.solution), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.residual[1], right[1, 0].abs(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.solution[2], right[2] / 2)
    assert not found.solution[3].any()
    assert found.products.tolist()[2:] == [1, 0]


def test_what_is_not_finite_stays_in_its_sample() -> None:
    matrices, right = torch.eye(SIZE, dtype=torch.float64) + 0.1 * normal(3, SIZE, SIZE), normal(3, SIZE, seed=1)
    matrices[1, 3, 4] = torch.nan
    found = solved(matrices, right)
    assert found.residual.isfinite().tolist() == [True, False, True]
    assert found.solution.isfinite().all()
    assert (defect(matrices[::2], right[::2], found.solution[::2]) < 1e-10).all()
