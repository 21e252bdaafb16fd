"""Norms of convolutions: never below the truth on any grid, near it, differentiable."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from itertools import product
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from invattn.functional import convolution_norm, convolution_norm_method, convolution_token_norm, convolve
from invattn.norms import token_norm

ROUNDING = 1e-12


@pytest.fixture(scope="module")
def sweep(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    """The script that measures the bounds, with its oracle: the operator's matrix, assembled from shifts."""
    return load_benchmark("convolution_bounds")


def weight(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_the_oracle_is_the_matrix_of_the_convolution(sweep: ModuleType, padding: str) -> None:
    kernel, grid = weight(2, 3, 5, 3), (3, 4)
    basis = torch.eye(36, dtype=torch.float64).view(36, 3, *grid)
    matrix = convolve(basis, kernel, padding=padding).flatten(1)
    truth = float(torch.linalg.matrix_norm(matrix, ord=2))
    assert sweep.true_norm(kernel, grid, padding=padding) == pytest.approx(truth, rel=1e-12)


def assert_rows_are_right(rows: list[object]) -> None:
    assert rows
    for row in rows:
        assert row.ratio >= 1 - ROUNDING, row  # type: ignore[attr-defined]
        assert row.open_ratio >= 1 - ROUNDING, row  # type: ignore[attr-defined]
        if row.padding == "circular" or row.taps == 1:  # type: ignore[attr-defined]
            assert row.ratio <= 1.01, row  # type: ignore[attr-defined]
        elif min(row.grid) >= 8:  # type: ignore[attr-defined]
            assert row.ratio <= 1.2, row  # type: ignore[attr-defined]


def test_never_below_the_truth_on_some_grids(sweep: ModuleType) -> None:
    grids = [(1, 4), (3, 2), (6, 5), (9, 8)]
    assert_rows_are_right(sweep.measure(grids, taps=(1, 3, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("height", range(1, 13))
def test_never_below_the_truth_on_any_grid_up_to_twelve(sweep: ModuleType, height: int) -> None:
    """Every H and W from 1 to 12, kernels of 1, 3 and 5, both paddings, three channel pairs, seven kernels each."""
    assert_rows_are_right(sweep.measure(list(product([height], range(1, 13))), taps=(1, 3, 5)))


def test_the_same_grid_is_no_bound_for_zero_padding_and_the_padded_one_is() -> None:
    """Taps (1, -1) on 3 pixels: the circle of 3 has norm 1.732, zeros 1.802, and the circle of 4 turns 1.848 or 2."""
    kernel = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    kernel[..., 1:] = torch.tensor([1.0, -1.0])
    zero, circle = (float(convolution_norm(kernel, padding=mode, grid=(1, 3))) for mode in ("zero", "circular"))
    assert circle == pytest.approx(2 * math.sin(math.pi / 3))
    assert zero == pytest.approx(2 * math.cos(math.pi / 7))
    wide = kernel.repeat(66, 1, 1, 1)  # too many outputs for nothing, but only 3 inputs: still exact
    assert float(convolution_norm(wide, grid=(1, 3))) == pytest.approx(math.sqrt(66) * zero)
    long = float(convolution_norm(kernel, grid=(1, 70)))
    assert 2 * math.cos(math.pi / 141) <= long * (1 + ROUNDING)
    assert long <= 2 * (1 + ROUNDING)


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("shape", [(66, 65, 3, 3), (70, 66, 1, 3)])
def test_many_channels_are_bounded_by_gram_iteration(sweep: ModuleType, shape: tuple[int, ...], padding: str) -> None:
    kernel, grid = weight(*shape), (2, 3)
    ratio = float(convolution_norm(kernel, padding=padding, grid=grid)) / sweep.true_norm(kernel, grid, padding=padding)
    assert 1 - ROUNDING <= ratio <= (1.01 if padding == "circular" else 1.6)
    assert "Gram iteration" in convolution_norm_method(shape, padding=padding, grid=(5, 6))


def test_the_bound_for_every_grid_is_within_one_percent_of_the_largest_response() -> None:
    for taps, seed in product(((3, 3), (5, 5), (1, 3)), range(3)):
        kernel = weight(3, 2, *taps, seed=seed)
        fine = F.pad(kernel, (0, 150 - taps[1], 0, 150 - taps[0]))
        responses = torch.fft.fft2(fine).permute(2, 3, 0, 1)
        truth = float(torch.linalg.matrix_norm(responses, ord=2).max())  # at 150 x 150 frequencies: from below
        assert truth * (1 - ROUNDING) <= float(convolution_norm(kernel)) <= 1.01 * truth


def test_a_peak_between_two_sampled_frequencies_is_still_bounded() -> None:
    """Taps that turn by pi / 48 each have norm 3 there, and less at every multiple of 2 pi / 48, where samples lie."""
    turns = [0.0, math.pi / 48, math.pi / 24]
    taps = [torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]).double() for t in turns]
    bound = float(convolution_norm(torch.stack(taps, dim=-1)[:, :, None]))
    assert 3 <= bound <= 1.005 * 3


@pytest.mark.parametrize("grid", [(4, 4), (9, 8), None])
def test_power_iteration_is_below_the_truth_and_the_bound_is_not(
    sweep: ModuleType, grid: tuple[int, int] | None
) -> None:
    """Five steps, as implementations of constrained convolutions take: an estimate, and too small every time."""
    size = grid or (12, 12)
    for seed in range(5):
        kernel = weight(2, 2, 3, 3, seed=seed)
        truth = sweep.true_norm(kernel, size, padding="zero")
        vector = weight(1, 2, *size, seed=seed + 10)
        for _ in range(5):
            image = F.conv2d(vector, kernel, padding=1)
            vector = F.conv_transpose2d(image / image.norm(), kernel, padding=1)
            vector = vector / vector.norm()
        estimate = float(F.conv2d(vector, kernel, padding=1).norm())
        assert estimate < truth * (1 - 1e-6)
        assert float(convolution_norm(kernel, grid=grid)) >= truth * (1 - ROUNDING)


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 6), None])
def test_the_sum_of_taps_bounds_the_token_norm(grid: tuple[int, int] | None, padding: str) -> None:
    kernel = weight(3, 2, 3, 5)
    bound = float(convolution_token_norm(kernel, padding=padding, grid=grid))
    plain = float(torch.linalg.matrix_norm(kernel.flatten(2).movedim(-1, 0), ord=2).sum())
    assert bound <= plain * (1 + ROUNDING)
    assert float(convolution_norm(kernel, padding=padding, grid=grid)) <= bound * (1 + ROUNDING)
    size = grid or (5, 7)
    x = weight(200, 2, *size, seed=1)
    ratio = token_norm(convolve(x, kernel, padding=padding)) / token_norm(x)
    assert float(ratio.max()) <= bound


def test_the_sum_of_taps_is_attained() -> None:
    """Taps that are multiples of one matrix, and an image with that matrix's best input, with signs, at each pixel."""
    matrix, signs = weight(3, 2), weight(3, 3, seed=1)
    kernel = matrix[:, :, None, None] * signs
    _, sizes, right = torch.linalg.svd(matrix)
    x = right[0][None, :, None, None] * signs.sign()
    bound = float(convolution_token_norm(kernel, grid=(3, 3)))
    assert bound == pytest.approx(float(sizes[0] * signs.abs().sum()))
    assert float(convolve(x, kernel)[0, :, 1, 1].norm()) == pytest.approx(bound)
    assert float(token_norm(x)) == pytest.approx(1.0)


def test_taps_that_cannot_hit_the_grid_do_not_count() -> None:
    kernel = weight(2, 3, 5, 5)
    centre = float(torch.linalg.matrix_norm(kernel[:, :, 2, 2], ord=2))
    folded = float(torch.linalg.matrix_norm(kernel.sum(dim=(2, 3)), ord=2))
    for bound in (convolution_norm, convolution_token_norm):
        assert float(bound(kernel, grid=(1, 1))) == pytest.approx(centre, rel=1e-12)
        assert float(bound(kernel, padding="circular", grid=(1, 1))) == pytest.approx(folded, rel=1e-12)


def test_a_bound_with_zero_padding_covers_smaller_grids(sweep: ModuleType) -> None:
    for kind, kernel in sweep.kernels((2, 2), 3, torch.Generator().manual_seed(3)):
        bound = float(convolution_norm(kernel, grid=(6, 7)))
        for grid in product(range(1, 7), range(1, 8)):
            assert sweep.true_norm(kernel, grid, padding="zero") <= bound * (1 + ROUNDING), (kind, grid)


GRIDS = [(1, 4), (2, 2), (9, 8), None]


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("grid", GRIDS)
def test_derivatives(grid: tuple[int, int] | None, padding: str) -> None:
    kernel = weight(3, 2, 3, 3).requires_grad_()
    for bound in (convolution_norm, convolution_token_norm):
        assert torch.autograd.gradcheck(lambda w, f=bound: f(w, padding=padding, grid=grid), (kernel,), fast_mode=True)


def test_derivatives_of_the_gram_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("invattn.functional.convolution"), "_EIGEN_SIZE", 1)
    kernel = weight(3, 2, 3, 3).requires_grad_()
    for grid in ((9, 8), None):
        assert torch.autograd.gradcheck(lambda w, g=grid: convolution_norm(w, grid=g), (kernel,), fast_mode=True)


def test_under_torch_func() -> None:
    kernels = weight(3, 2, 2, 3, 3)
    plain = torch.stack([convolution_norm(kernel, grid=(5, 6)) for kernel in kernels])
    torch.testing.assert_close(torch.func.vmap(lambda w: convolution_norm(w, grid=(5, 6)))(kernels), plain)
    found = torch.func.vmap(torch.func.grad(lambda w: convolution_norm(w, grid=(5, 6))))(kernels)
    leaf = kernels.clone().requires_grad_()
    torch.stack([convolution_norm(kernel, grid=(5, 6)) for kernel in leaf]).sum().backward()
    torch.testing.assert_close(found, leaf.grad)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_any_scale_of_single_precision_weights(scale: float, grid: tuple[int, int] | None) -> None:
    kernel = weight(2, 3, 3, 3, dtype=torch.float32)
    expected = float(convolution_norm(kernel, grid=grid))
    leaf = (kernel * scale).requires_grad_()
    bound = convolution_norm(leaf, grid=grid)
    assert bound.dtype == torch.float64
    assert float(bound.detach()) == pytest.approx(scale * expected, rel=1e-6, abs=1e-100)
    (grad,) = torch.autograd.grad(bound, leaf)
    assert grad.isfinite().all()


def test_one_tap_is_exact_and_every_method_has_words() -> None:
    kernel = weight(5, 4, 1, 1)
    truth = float(torch.linalg.matrix_norm(kernel[:, :, 0, 0], ord=2))
    for grid in (None, (3, 4), (100, 100)):
        for padding in ("zero", "circular"):
            assert float(convolution_norm(kernel, padding=padding, grid=grid)) == pytest.approx(truth, rel=1e-12)
    shape = (5, 4, 3, 3)
    assert convolution_norm_method((5, 4, 1, 1)) == "the spectral norm of one tap"
    assert convolution_norm_method(shape, grid=(4, 4)) == "the whole operator on 4 x 4"
    assert convolution_norm_method(shape, grid=(8, 9)).startswith("zeros around 8 x 9, exact")
    assert convolution_norm_method(shape, padding="circular", grid=(8, 9)).startswith("circular grid 8 x 9, exact")
    for padding in ("zero", "circular"):
        assert convolution_norm_method(shape, padding=padding, grid=(500, 500)).startswith("every grid, exact")


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="odd height and width"):
        convolution_norm(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="Did you mean 'circular'"):
        convolution_norm(torch.zeros(1, 1, 3, 3), padding="circle")
    with pytest.raises(ValueError, match="both at least 1"):
        convolution_token_norm(torch.zeros(1, 1, 3, 3), grid=(0, 3))
