"""Convolutions that keep the size of an image, for kernels and grids of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn._errors import check_name
from invattn.functional._transforms import transforms_active
from invattn.functional.spectral import gram_norm, log_top_eigenvalue, spectral_norm

_FEW_CHANNELS = 8
"""Up to so many channels out, and more in, a product of matrices is quicker than a convolution on processors."""

PADDINGS = ("zero", "circular")
"""What lies beyond the edge of an image: zeros, or the image again."""


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: str = "zero") -> Tensor:
    """Return y_i = sum_ab K_ab x_{i + (a, b)} + bias, with offsets counted from the middle of the kernel.

    Args:
        x: Images with shape (B, channels in, H, W).
        weight: K with shape (channels out, channels in, height, width), both sides odd; they may exceed H and W.
        bias: Shape (channels out,), or None.
        padding: "zero" or "circular".

    Returns:
        Images with shape (B, channels out, H, W).

    Raises:
        ValueError: If a side of the kernel is even or the padding unknown.
    """
    check_name(padding, PADDINGS, what="padding")
    check_kernel(weight.shape)
    half = (weight.shape[2] // 2, weight.shape[3] // 2)
    if padding == "zero":
        return F.conv2d(x, weight, bias, padding=half)
    # torch pads circularly by at most one turn; an index counted modulo the side wraps as often as needed.
    for axis, reach in zip((2, 3), half, strict=True):
        side = x.shape[axis]
        if reach and side:
            x = x.index_select(axis, torch.arange(-reach, side + reach, device=x.device) % side)
    return F.conv2d(x, weight, bias)


def transposed_convolution(weight: Tensor, *, padding: str = "zero") -> Callable[[Tensor], Tensor]:
    """Return the transpose of :func:`convolve` with a kernel, for many images and without gradient.

    Args:
        weight: As there.
        padding: As there.
    """
    check_kernel(weight.shape)
    kernel = weight.detach().transpose(0, 1).flip(2, 3)
    if padding == "zero" and weight.device.type == "cpu" and kernel.shape[0] <= _FEW_CHANNELS < kernel.shape[1]:
        rows = kernel.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)  # (channels out, height, width), channels in
        return partial(_spread, rows=rows, sides=kernel.shape[2:])
    return partial(convolve, weight=arranged(kernel), padding=padding)


def _spread(x: Tensor, rows: Tensor, sides: Sequence[int]) -> Tensor:
    """Return a convolution with zero padding to few channels: what each pixel adds to its neighbours, summed up."""
    height, width = x.shape[2:]
    parts = rows.to(x.dtype) @ x.flatten(2)
    return F.fold(parts, (height, width), (sides[0], sides[1]), padding=(sides[0] // 2, sides[1] // 2))


def arranged(x: Tensor) -> Tensor:
    """Return images, or a kernel, in the layout in which convolutions are quickest: on processors the channels of a
    pixel side by side. (Between 3 and 64 channels they then take an eighth to two thirds of the time.)
    """
    if x.device.type != "cpu" or transforms_active():  # vmap knows no such layout
        return x
    return x.contiguous(memory_format=torch.channels_last)


def check_kernel(shape: Sequence[int]) -> None:
    """Raise ValueError unless the shape is that of a kernel with odd sides."""
    if len(shape) != 4 or shape[2] % 2 == 0 or shape[3] % 2 == 0:
        raise ValueError(
            "a kernel must have shape (channels out, channels in, height, width) with odd height and width; got "
            f"{tuple(shape)}."
        )


_DENSE_SIZE = 64  # up to this smaller side the matrix of the whole operator is decomposed
_EIGEN_SIZE = 64  # up to this many channels frequencies are decomposed exactly; Gram iteration above
_GRAM_STEPS = 8  # ratio to the truth at most m^(2^-(steps+2)): 1.006 at m = 512
_SAMPLES = 24  # frequencies per axis and degree where the grid is open: within 1 / cos(pi / 24) = 1.0087


def convolution_norm(weight: Tensor, *, padding: str = "zero", grid: tuple[int, int] | None = None) -> Tensor:
    """Return an upper bound of the Euclidean operator norm of a "same" convolution, in float64 and without state.

    With K(w) = sum_ab K_ab exp(-i w . (a, b)), the spectral norm of K(w) is taken

    * circular padding, known grid: at the H W frequencies of the grid, which is exact;
    * zero padding, known grid: at the frequencies of four larger grids, periodic or antiperiodic along each axis,
      of which the least maximum counts: each is a bound, because zeros keep the ends of the image apart;
    * open grid, or one with more frequencies than that takes: at sampled frequencies, times 1 / cos(pi / 24) for
      what lies between them, a bound for every grid.

    It is exact for zero padding where the operator's matrix has a side of at most 64, and for 1 x 1 convolutions;
    it never exceeds the sum of the norms of the taps. Differentiable.

    Args:
        weight: K with shape (channels out, channels in, height, width), both sides odd; finite.
        padding: "zero" or "circular".
        grid: (H, W) of the images in pixels, or None for a bound that holds for every grid. With zero padding the
            bound for one grid holds for every smaller one; with circular padding it does not.

    Returns:
        A float64 scalar.

    Raises:
        ValueError: If a side of the kernel is even, the padding unknown or the grid empty.

    References:
        docs/theory.md, "Convolutions"; Sedghi et al. 2019 (circular padding); Delattre et al. 2023 (Gram iteration).
    """
    kernel, size = _reachable(weight, padding, grid)
    if kernel.shape[2] == kernel.shape[3] == 1:
        return size * _sum_of_taps(kernel)
    plan = _plan(kernel.shape, padding, grid)
    bound = _top_response(kernel, plan) if plan.circles else _dense_norm(kernel, grid)
    return size * torch.minimum(bound, _sum_of_taps(kernel))


def convolution_token_norm(weight: Tensor, *, padding: str = "zero", grid: tuple[int, int] | None = None) -> Tensor:
    """Return sum_ab |K_ab|_2, an upper bound of the operator norm in |.|_{inf,2} (pixels are tokens), in float64.

    The taps are those that can hit the grid; taps that circular padding brings to one pixel are added up first.

    Args:
        weight: K with shape (channels out, channels in, height, width), both sides odd; finite.
        padding: "zero" or "circular".
        grid: (H, W) in pixels, or None for a bound that holds for every grid.

    Returns:
        A float64 scalar.

    Raises:
        ValueError: As :func:`convolution_norm`.
    """
    kernel, size = _reachable(weight, padding, grid)
    return size * _sum_of_taps(kernel)


def convolution_norm_method(shape: Sequence[int], *, padding: str = "zero", grid: tuple[int, int] | None = None) -> str:
    """Return in words how :func:`convolution_norm` bounds a weight of this shape."""
    return _plan(_reachable_shape(shape, padding, grid), padding, grid).words


@dataclass(frozen=True)
class _Circle:
    """A grid whose ends are joined, with a factor exp(2 pi i twist) from one turn to the next."""

    sides: tuple[int, int]
    twist: tuple[float, float] = (0.0, 0.0)

    def frequencies(self, like: Tensor) -> Tensor:
        """Return w with shape (n, 2), one of each pair w and -w (where real kernels have equal norms)."""
        first, second = (
            2 * math.pi * (torch.arange(side, dtype=like.dtype, device=like.device) + twist) / side
            for side, twist in zip(self.sides, self.twist, strict=True)
        )
        return torch.cartesian_prod(first, second[: self._half])

    @property
    def count(self) -> int:
        return self.sides[0] * self._half

    @property
    def _half(self) -> int:
        """How many frequencies of the second axis are at most pi."""
        return (self.sides[1] + 1) // 2 if self.twist[1] else self.sides[1] // 2 + 1


@dataclass(frozen=True)
class _Plan:
    """Circles of which the least maximum counts, times a factor; none: the matrix of the whole operator."""

    circles: tuple[_Circle, ...]
    words: str
    factor: float = 1.0

    @property
    def count(self) -> int:
        """How many frequencies it takes."""
        return sum([circle.count for circle in self.circles])


def _plan(shape: Sequence[int], padding: str, grid: tuple[int, int] | None) -> _Plan:
    """Choose how to bound a kernel of the taps that can hit the grid."""
    if shape[2] == shape[3] == 1:
        return _Plan((_Circle((1, 1)),), "the spectral norm of one tap")
    how = "exact" if min(shape[:2]) <= _EIGEN_SIZE else "Gram iteration"
    sampled = [max(1, _SAMPLES * (taps - 1)) for taps in shape[2:]]
    between = math.cos(math.pi / _SAMPLES) ** (-0.5 * sum(taps > 1 for taps in shape[2:]))
    every = _Plan((_Circle((sampled[0], sampled[1])),), f"every grid, {how} at sampled frequencies", between)
    if grid is None:
        return every
    if padding == "circular":
        known = _Plan((_Circle(grid),), f"circular grid {grid[0]} x {grid[1]}, {how} at every frequency")
    elif min(shape[:2]) * grid[0] * grid[1] <= _DENSE_SIZE:
        return _Plan((), f"the whole operator on {grid[0]} x {grid[1]}")
    else:
        # Half a kernel of zeros on one side is enough: on a circle it lies on the other side too.
        sides = (grid[0] + shape[2] // 2, grid[1] + shape[3] // 2)
        twists = [(a, b) for a in (0.0, 0.5) for b in (0.0, 0.5)]
        circles = tuple(_Circle(sides, twist) for twist in twists)
        known = _Plan(circles, f"zeros around {grid[0]} x {grid[1]}, {how} at every frequency")
    return known if known.count <= every.count else every


def _reachable_shape(shape: Sequence[int], padding: str, grid: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape of the kernel of the taps that can hit the grid."""
    check_name(padding, PADDINGS, what="padding")
    check_kernel(shape)
    if grid is None:
        return tuple(shape)
    if min(grid) < 1:
        raise ValueError(f"grid must be (H, W), both at least 1; got {grid}. None is a bound for every grid.")
    if padding == "circular":
        sides = [min(taps, side) for taps, side in zip(shape[2:], grid, strict=True)]
    else:
        sides = [min(taps, 2 * side - 1) for taps, side in zip(shape[2:], grid, strict=True)]
    return (*shape[:2], *sides)


def _reachable(weight: Tensor, padding: str, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Return the taps that can hit the grid, divided by their largest entry, and that entry, both float64.

    Circular padding: taps that fall on one pixel are added up, and the kernel is shifted, which no norm sees.
    """
    shape = _reachable_shape(weight.shape, padding, grid)
    kernel = weight.double()
    for axis in (2, 3):
        taps, kept = weight.shape[axis], shape[axis]
        if kept == taps:
            continue
        if padding == "circular":
            pixel = F.one_hot(torch.arange(taps, device=kernel.device) % kept, kept).to(kernel.dtype)
            kernel = (kernel.movedim(axis, -1) @ pixel).movedim(-1, axis)
        else:
            kernel = kernel.narrow(axis, (taps - kept) // 2, kept)
    # Squares of huge or tiny entries would overflow or vanish.
    size = kernel.detach().abs().amax().clamp_min(torch.finfo(kernel.dtype).tiny)
    return kernel / size, size


def _sum_of_taps(kernel: Tensor) -> Tensor:
    total: Tensor = spectral_norm(kernel.flatten(2).movedim(-1, 0)).sum()
    return total


def _dense_norm(kernel: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Return the largest singular value of the matrix of the operator with zero padding."""
    assert grid is not None
    size = kernel.shape[1] * grid[0] * grid[1]
    basis = torch.eye(size, dtype=kernel.dtype, device=kernel.device).view(size, kernel.shape[1], *grid)
    norm: Tensor = torch.linalg.matrix_norm(convolve(basis, kernel).flatten(1), ord=2)
    return norm


def _top_response(kernel: Tensor, plan: _Plan) -> Tensor:
    """Return the least over circles of the largest norm of K(w), times the plan's factor.

    The frequency is found without gradient; the norm at that one frequency has the gradient of the whole.
    """
    taps = _autocorrelation(kernel.detach())
    tops, frequencies = [], []
    for circle in plan.circles:
        candidates = circle.frequencies(kernel)
        sizes = _sizes(_hermitian(taps, candidates))
        tops.append(sizes.amax())
        frequencies.append(candidates.index_select(0, sizes.argmax()[None]))
    frequency = torch.cat(frequencies).index_select(0, torch.stack(tops).argmin()[None])
    response = _fourier(kernel.flatten(2).movedim(-1, 0), frequency, shape=kernel.shape[2:], start=(0, 0))[0]
    if min(kernel.shape[:2]) > _EIGEN_SIZE:
        return plan.factor * gram_norm(response, steps=_GRAM_STEPS)
    norm: Tensor = plan.factor * torch.linalg.matrix_norm(response, ord=2)
    return norm


def _sizes(gram: Tensor) -> Tensor:
    """Return what grows with the norm, as :func:`_top_response` will take it, for Gram matrices (n, m, m)."""
    if gram.shape[-1] > _EIGEN_SIZE:
        return log_top_eigenvalue(gram, steps=_GRAM_STEPS)
    largest: Tensor = torch.linalg.eigvalsh(gram)[..., -1]
    return largest


def _autocorrelation(kernel: Tensor) -> Tensor:
    """Return A_t = sum_s K_{s+t} K_s^T (or K^T K where that is smaller), shape (m, m, 2 kh - 1, 2 kw - 1)."""
    small = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.transpose(0, 1)
    return F.conv2d(small, small, padding=(kernel.shape[2] - 1, kernel.shape[3] - 1))


def _hermitian(taps: Tensor, frequencies: Tensor) -> Tensor:
    """Return K(w) K(w)^H for each frequency, shape (n, m, m), from the autocorrelation."""
    height, width = taps.shape[2:]
    start = (-(height // 2), -(width // 2))
    return _fourier(taps.flatten(2).movedim(-1, 0), frequencies, shape=taps.shape[2:], start=start)


def _fourier(taps: Tensor, frequencies: Tensor, *, shape: Sequence[int], start: tuple[int, int]) -> Tensor:
    """Return sum_ab T_ab exp(-i w . (a, b)), shape (n, ...), for taps (height width, ...) and frequencies (n, 2)."""
    rows, columns = (
        torch.arange(first, first + side, dtype=taps.dtype, device=taps.device)
        for first, side in zip(start, shape, strict=True)
    )
    angles = frequencies @ torch.cartesian_prod(rows, columns).mT
    entries = taps.flatten(1)
    real, imaginary = angles.cos() @ entries, -(angles.sin() @ entries)
    return torch.complex(real, imaginary).view(-1, *taps.shape[1:])
