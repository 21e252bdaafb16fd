"""Marginal Gaussianisation of bounded data: the cumulative histogram of each channel, then the normal quantile."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invattn.bijections.affine import DataDependent
from invattn.bijections.closed_form import ChannelMap

_REACH = 4.0  # the ends of the interval go to -4 and 4
_OUTSIDE = 0.5 * math.erfc(_REACH / math.sqrt(2))  # what a standard normal distribution has beyond on each side, 3e-5


class HistogramNormal(ChannelMap, DataDependent):
    """z = Phi^{-1}(F_c(x)) for every entry of channel c, F_c the cumulative histogram of the channel.

    The density of a channel alone is then its histogram: right for dequantised data with few grey levels, of which a
    Gaussian or a smooth spline knows too little. [low, high] goes to [-4, 4], by straight lines beyond, so that the
    map is a bijection of the whole line. Probabilities are computed in float64. Fitted to data and then fixed; before
    that every level has the same share.

    Args:
        channels: C.
        levels: Cells of the histogram, all of one width.
        low: The lower end of the data.
        high: The upper end.
        smoothing: Counts added to each cell, > 0: no cell is empty.

    Raises:
        ValueError: If the interval is empty or a number out of range.

    References:
        Chen and Gopinath 2000 (Gaussianisation).
    """

    certified = True  # no cell is empty
    cumulative: Tensor

    def __init__(
        self, channels: int, *, levels: int, low: float = -0.5, high: float = 0.5, smoothing: float = 0.1
    ) -> None:
        super().__init__(channels)
        if levels < 1 or not low < high or not smoothing > 0:
            raise ValueError(
                f"levels >= 1, low < high and smoothing > 0 are needed; got {levels}, {low}, {high} and {smoothing}."
            )
        self.levels, self.low, self.high, self.smoothing = levels, low, high, smoothing
        self.register_buffer("cumulative", self._cumulative(torch.zeros(channels, levels)))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Count how often each channel falls into each cell.

        Args:
            x: Inputs, at least two values a channel; those outside the interval count for the outermost cells.

        Raises:
            ValueError: If x is not finite or has another shape.
        """
        rows = self._rows(x)
        if rows.shape[1] < 2 or not bool(rows.isfinite().all()):
            raise ValueError("a histogram counts at least two finite values a channel. Check the data.")
        cells = self._cell(self._position(rows))
        counts = torch.zeros_like(self.cumulative[:, 1:], dtype=torch.float64)
        self.cumulative.copy_(
            self._cumulative(counts.scatter_add_(1, cells, torch.ones_like(rows, dtype=torch.float64)))
        )
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_and_log_det(x)[0]

    def log_det(self, x: Tensor) -> Tensor:
        return self.forward_and_log_det(x)[1]

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        position = self._position(self._rows(x).double())
        cell = self._cell(position)
        lower, share = self._table(cell)
        nearest = position.clamp(0, self.levels)
        z = torch.special.ndtri(lower + share * (nearest - cell))
        log_slope = torch.where(nearest == position, share.log() - _log_density(z), 0.0)
        z, log_slope = z + position - nearest, log_slope + math.log(self._cells_per_unit)
        return self._like(z, x), self._like(log_slope, x).flatten(1).sum(dim=1)

    def inverse(self, z: Tensor) -> Tensor:
        rows = self._rows(z).double()
        ends = torch.special.ndtri(self.cumulative.double()[:, [0, -1]])
        nearest = rows.clamp(ends[:, :1], ends[:, 1:])
        probability = torch.special.ndtr(nearest)
        with torch.no_grad():
            cell = torch.searchsorted(self.cumulative.double(), probability, right=True) - 1
            cell = cell.clamp(0, self.levels - 1)
        lower, share = self._table(cell)
        position = cell + (probability - lower) / share + rows - nearest
        return self._like(self.low + position / self._cells_per_unit, z)

    def rounding_bound(self, x: Tensor, z: Tensor) -> None:
        """Return None: where data are rare the inverse magnifies the rounding of z."""

    def stretch(self) -> tuple[float, float]:
        """Return the least and the largest slope: share / density of z within a cell, 1 beyond, times the cells."""
        cumulative = self.cumulative.double()
        size = torch.special.ndtri(cumulative).abs()
        crosses = (cumulative[:, :-1] < 0.5) & (cumulative[:, 1:] > 0.5)
        nearest = torch.where(crosses, 0.0, torch.minimum(size[:, :-1], size[:, 1:]))
        log_share = cumulative.diff(dim=1).log()
        least = (log_share - _log_density(nearest)).exp().min()
        largest = (log_share - _log_density(torch.maximum(size[:, :-1], size[:, 1:]))).exp().max()
        return self._cells_per_unit * min(1.0, float(least)), self._cells_per_unit * max(1.0, float(largest))

    @property
    def _cells_per_unit(self) -> float:
        return self.levels / (self.high - self.low)

    def _cumulative(self, counts: Tensor) -> Tensor:
        """Return the probability of z below each edge between cells, shape (C, levels + 1)."""
        shares = counts.double() + self.smoothing
        shares = (1 - 2 * _OUTSIDE) * shares / shares.sum(dim=1, keepdim=True)
        below = torch.cat([torch.full_like(shares[:, :1], _OUTSIDE), shares], dim=1).cumsum(dim=1)
        return below.to(torch.get_default_dtype())

    def _table(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability below a cell and that of the cell, both with the shape of ``cell``, (C, n)."""
        cumulative = self.cumulative.double()
        lower = cumulative.gather(1, cell)
        return lower, cumulative.gather(1, cell + 1) - lower

    def _position(self, rows: Tensor) -> Tensor:
        """Return x in units of cells, 0 at the lower end."""
        return (rows - self.low) * self._cells_per_unit

    def _cell(self, position: Tensor) -> Tensor:
        return position.detach().floor().long().clamp(0, self.levels - 1)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, levels={self.levels}, low={self.low}, high={self.high}"


def _log_density(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi))
