"""Generated points against their own densities, by counting them in cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.experiments.density.points import GENERATED, PLANE, PlanePoints

SIDE = 5.0
CELLS = 10
FINE = 12


def plane_points(name: str, *, seed: int) -> PlanePoints:
    found = GENERATED[name](seed=seed)
    assert isinstance(found, PlanePoints)
    return found


def grid(cells: int) -> Tensor:
    """Centres of the cells of the square [-5, 5) x [-5, 5), shape (cells^2, 2), the first coordinate outermost."""
    middle = 2 * SIDE * ((torch.arange(cells, dtype=torch.float64) + 0.5) / cells - 0.5)
    return torch.cartesian_prod(middle, middle)


@pytest.mark.parametrize("name", PLANE)
def test_as_many_points_fall_into_each_cell_as_the_density_says(name: str) -> None:
    count = 40_000
    points = plane_points(name, seed=3)(torch.arange(count)).double()
    assert points.shape == (count, 2)
    cells = ((points + SIDE) * CELLS / (2 * SIDE)).floor().long()
    assert bool(((cells >= 0) & (cells < CELLS)).all())
    found = torch.bincount(cells[:, 0] * CELLS + cells[:, 1], minlength=CELLS**2).double()
    fine = plane_points(name, seed=0).log_density(grid(CELLS * FINE)).exp().view(CELLS, FINE, CELLS, FINE)
    share = fine.mean(dim=(1, 3)).flatten() * (2 * SIDE / CELLS) ** 2
    assert float(share.sum()) == pytest.approx(1.0, abs=2e-3)  # the midpoint rule at steps of 0.083
    expected = count * share
    usual = expected > 10
    chi_square = ((found - expected).square() / expected)[usual].sum()
    freedom = int(usual.sum()) - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5
    assert found[~usual].sum() < 10 * (~usual).sum() + 50


@pytest.mark.parametrize("name", PLANE)
def test_a_point_is_a_function_of_seed_and_number(name: str) -> None:
    index = torch.tensor([7, 0, 123_456, 7])
    points = plane_points(name, seed=5)(index)
    assert points.dtype == torch.float32
    assert torch.equal(points[0], points[3])
    assert torch.equal(points[1:3], plane_points(name, seed=5)(index[1:3], epoch=9))
    assert not torch.equal(points, plane_points(name, seed=6)(index))


def test_outside_of_its_squares_a_checkerboard_has_no_density() -> None:
    places = torch.tensor([[-1.5, -1.5], [-0.5, -1.5], [0.5, 0.5], [2.5, 0.5], [-2.5, -0.5]])
    inside = plane_points("checkerboard", seed=0).log_density(places).exp() * 8
    torch.testing.assert_close(inside, torch.tensor([1, 0, 1, 0, 0], dtype=torch.float64))
