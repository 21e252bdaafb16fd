"""Measure how far the bound of a convolution's norm lies above the truth, on every grid from 1 x 1 to 12 x 12.

    python benchmarks/convolution_bounds.py [--largest 12] [--output docs/results/convolution_bounds.md]

The truth is the largest singular value of the operator's matrix, assembled from shifts. Kernels of 3 x 3 and 5 x 5,
both paddings, several channel pairs, random and structured taps.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

import invattn
from invattn._files import atomic_write
from invattn.functional import PADDINGS, convolution_norm

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results" / "convolution_bounds.md"
CHANNELS = ((1, 1), (2, 3), (3, 1))
KERNELS = (3, 5)
COMMAND = "python benchmarks/convolution_bounds.py"


@dataclass(frozen=True)
class Row:
    """One kernel on one grid.

    Attributes:
        kind: What kernel it is.
        taps: Side of the kernel.
        padding: Padding mode.
        grid: (H, W).
        ratio: Bound for this grid over truth.
        open_ratio: Bound for every grid over truth.
    """

    kind: str
    taps: int
    padding: str
    grid: tuple[int, int]
    ratio: float
    open_ratio: float


def shift(side: int, offset: int, *, padding: str) -> Tensor:
    """Return the matrix of y_i = x_{i + offset} on a line of this many pixels."""
    matrix = torch.zeros(side, side, dtype=torch.float64)
    for i in range(side):
        j = (i + offset) % side if padding == "circular" else i + offset
        if 0 <= j < side:
            matrix[i, j] = 1
    return matrix


def true_norm(weight: Tensor, grid: tuple[int, int], *, padding: str) -> float:
    """Return the largest singular value of sum_ab S_a x S_b x K_ab."""
    half = (weight.shape[2] // 2, weight.shape[3] // 2)
    rows = [shift(grid[0], a - half[0], padding=padding) for a in range(weight.shape[2])]
    columns = [shift(grid[1], b - half[1], padding=padding) for b in range(weight.shape[3])]
    across = torch.einsum("byx,oiab->aoyix", torch.stack(columns), weight)
    matrix = torch.einsum("ahk,aoyix->hoykix", torch.stack(rows), across)
    size = grid[0] * grid[1]
    return float(torch.linalg.matrix_norm(matrix.reshape(size * weight.shape[0], size * weight.shape[1]), ord=2))


def kernels(channels: tuple[int, int], taps: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Yield kernels by name: random, of low rank, smooth, oscillating, a difference, sparse, one tap in a corner."""
    shape = (*channels, taps, taps)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    yield "random", noise
    first, second = (torch.randn(*channels, taps, generator=generator, dtype=torch.float64) for _ in range(2))
    yield "separable", first[..., :, None] * second[..., None, :]
    yield "constant", torch.ones(shape, dtype=torch.float64)
    signs = (-1.0) ** torch.arange(taps, dtype=torch.float64)
    yield "alternating", (signs[:, None] * signs).expand(shape)
    difference = torch.zeros(shape, dtype=torch.float64)
    difference[..., taps // 2, taps // 2], difference[..., taps // 2, -1] = 1, -1
    yield "difference", difference
    yield "sparse", noise * (torch.rand(shape, generator=generator) < 0.2)
    corner = torch.zeros(shape, dtype=torch.float64)
    corner[..., 0, 0] = noise[..., 0, 0]
    yield "corner", corner


def measure(grids: Sequence[tuple[int, int]], *, taps: Sequence[int] = KERNELS) -> list[Row]:
    """Return one row for every kernel with a norm above 0, grid and padding."""
    rows = []
    generator = torch.Generator().manual_seed(0)
    for side, channels, grid, padding in product(taps, CHANNELS, grids, PADDINGS):
        for kind, weight in kernels(channels, side, generator):
            truth = true_norm(weight, grid, padding=padding)
            if truth > 1e-9:
                bounds = [float(convolution_norm(weight, padding=padding, grid=g)) / truth for g in (grid, None)]
                rows.append(Row(kind, side, padding, grid, *bounds))
    return rows


def all_grids(largest: int) -> list[tuple[int, int]]:
    return list(product(range(1, largest + 1), repeat=2))


def report(rows: Sequence[Row]) -> str:
    """Return the page."""
    head = ["smaller side"]
    for taps in KERNELS:
        head += [f"{taps} x {taps}: median", "largest", "every grid: median", "largest"]
    lines = [head, ["---"] * len(head)]
    for side in sorted({min(row.grid) for row in rows}):
        line = [str(side)]
        for taps in KERNELS:
            here = [row for row in rows if (row.padding, row.taps, min(row.grid)) == ("zero", taps, side)]
            for ratios in ([row.ratio for row in here], [row.open_ratio for row in here]):
                line += [f"{statistics.median(ratios):.3f}", f"{max(ratios):.3f}"]
        lines.append(line)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    below = sum(min(row.ratio, row.open_ratio) < 1 - 1e-12 for row in rows)
    circular = max(row.ratio for row in rows if row.padding == "circular")
    return f"""# How far bounds of convolutions lie above the truth

`{COMMAND}`, invattn {invattn.__version__}, torch {torch.__version__}, float64:
{len(rows)} pairs of a kernel and a grid. The truth is the largest singular value of the operator's matrix; bounds
below it: {below}.

Bound divided by truth for zero padding, by the smaller side of the grid (the other side is anything up to the largest):
for this grid (`grid=(H, W)`), and for every grid (`grid=None`), which no small grid comes near.

{table}

Circular padding on a known grid: the largest ratio is {circular:.9f}.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=12, help="largest side of a grid")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the page to write")
    options = parser.parse_args(arguments)
    atomic_write(options.output, report(measure(all_grids(options.largest))).encode())


if __name__ == "__main__":
    main()
