"""Convolutions of the same size, against the sum written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.functional import convolve
from invattn.functional.convolution import transposed_convolution


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def written_out(x: Tensor, weight: Tensor, bias: Tensor, padding: str) -> Tensor:
    """y_{o,h,w} = bias_o + sum K_{o,i,a,b} x_{i, h + a - p, w + b - q}, entry by entry."""
    height, width = x.shape[2:]
    result = bias[None, :, None, None].repeat(x.shape[0], 1, height, width)
    for a in range(weight.shape[2]):
        for b in range(weight.shape[3]):
            for h in range(height):
                for w in range(width):
                    row, column = h + a - weight.shape[2] // 2, w + b - weight.shape[3] // 2
                    if padding == "circular":
                        row, column = row % height, column % width
                    if 0 <= row < height and 0 <= column < width:
                        result[:, :, h, w] += x[:, :, row, column] @ weight[:, :, a, b].mT
    return result


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (5, 5), (3, 5), (7, 1)])
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 3), (4, 5)])
def test_it_is_the_sum_for_kernels_of_any_size(grid: tuple[int, int], taps: tuple[int, int], padding: str) -> None:
    x = torch.randn(2, 3, *grid, dtype=torch.float64, generator=seeded(0))
    weight = torch.randn(2, 3, *taps, dtype=torch.float64, generator=seeded(1))
    bias = torch.randn(2, dtype=torch.float64, generator=seeded(2))
    expected = written_out(x, weight, bias, padding)
    torch.testing.assert_close(convolve(x, weight, bias, padding=padding), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("channels", [(3, 2), (12, 3), (3, 12), (12, 20)], ids=str)
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (3, 5)], ids=str)
def test_the_transpose_is_the_adjoint(channels: tuple[int, int], taps: tuple[int, int], padding: str) -> None:
    """<K x, y> = <x, K^T y>, with few channels (a product of matrices) and many (a convolution)."""
    weight = torch.randn(*channels, *taps, dtype=torch.float64, generator=seeded(3))
    x = torch.randn(2, channels[1], 4, 5, dtype=torch.float64, generator=seeded(4)).requires_grad_()
    y = torch.randn(2, channels[0], 4, 5, dtype=torch.float64, generator=seeded(5))
    (expected,) = torch.autograd.grad(convolve(x, weight, padding=padding), x, y)
    found = transposed_convolution(weight, padding=padding)
    torch.testing.assert_close(found(y), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(found)(y[:, None])[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_an_empty_batch_keeps_its_shape(padding: str) -> None:
    assert convolve(torch.zeros(0, 3, 4, 5), torch.zeros(2, 3, 3, 3), padding=padding).shape == (0, 2, 4, 5)


def test_even_kernels_and_unknown_paddings_are_refused() -> None:
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"odd height and width; got \(1, 1, 2, 3\)"):
        convolve(x, torch.zeros(1, 1, 2, 3))
    with pytest.raises(ValueError, match="Did you mean 'circular'"):
        convolve(x, torch.zeros(1, 1, 3, 3), padding="circlar")
