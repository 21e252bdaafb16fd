"""Monotone rational-quadratic splines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RationalQuadratic:
    """Increasing splines, one a row, through given points with given slopes; straight beyond the outermost knots.

    Between knots (x0, y0) and (x1, y1) with slopes d0, d1, secant s and t = (x - x0) / (x1 - x0):
    y = y0 + (y1 - y0) (s t^2 + d0 t (1-t)) / (s + (d0 + d1 - 2 s) t (1-t)).

    Attributes:
        places: x of the knots, shape (R, K), increasing.
        values: y of the knots, shape (R, K), increasing.
        slopes: dy/dx at the knots, shape (R, K), positive.

    References:
        Gregory and Delbourgo 1982; Durkan et al. 2019, Sec. 3.1.
    """

    places: Tensor
    values: Tensor
    slopes: Tensor

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and log dy/dx at x, all with shape (R, n)."""
        knot = self._pieces(self.places, x)
        x0, x1, y0, y1, d0, d1 = knot
        secant = (y1 - y0) / (x1 - x0)
        t = ((x - x0) / (x1 - x0)).clamp(0, 1)
        product, bend = t * (1 - t), d0 + d1 - 2 * secant
        divisor = secant + bend * product
        y = y0 + (y1 - y0) * (secant * t.square() + d0 * product) / divisor
        rise = d1 * t.square() + 2 * secant * product + d0 * (1 - t).square()
        log_slope = 2 * (secant / divisor).log() + rise.log()
        return _with_tails(x, x0, x1, y, (y0, y1), (d0, d1)), log_slope

    def inverse(self, y: Tensor) -> Tensor:
        """Return x at y, both with shape (R, n)."""
        x0, x1, y0, y1, d0, d1 = self._pieces(self.values, y)
        rise, height = (y - y0).clamp(min=0).minimum(y1 - y0), y1 - y0
        secant = height / (x1 - x0)
        bent = rise * (d0 + d1 - 2 * secant)
        a, b, c = height * (secant - d0) + bent, height * d0 - bent, -secant * rise
        # The root in [0, 1] in the form that loses no digits to cancellation.
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        x = x0 + t * (x1 - x0)
        return _with_tails(y, y0, y1, x, (x0, x1), (1 / d0, 1 / d1))

    def slopes_within(self) -> tuple[float, float]:
        """Return proven lower and upper bounds of dy/dx over all rows.

        The slope is s^2 (d1 t^2 + 2 s t (1-t) + d0 (1-t)^2) / (s + (d0 + d1 - 2 s) t (1-t))^2: a mean of d0, s and d1
        over the square of what lies between s and (d0 + d1 + 2 s) / 4.
        """
        secant = self.values.diff(dim=1) / self.places.diff(dim=1)
        d0, d1 = self.slopes[:, :-1], self.slopes[:, 1:]
        other = (d0 + d1 + 2 * secant) / 4
        three = torch.stack([d0, secant, d1])
        lower = (secant / torch.maximum(secant, other)).square() * three.amin(dim=0)
        upper = (secant / torch.minimum(secant, other)).square() * three.amax(dim=0)
        return float(lower.min()), float(upper.max())

    def _pieces(self, edges: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return x0, x1, y0, y1, d0, d1 of the piece that each x lies in, the outermost for those beyond."""
        with torch.no_grad():
            below = torch.searchsorted(edges.contiguous(), x, right=True) - 1
            below = below.clamp(0, edges.shape[1] - 2)
        tables = (self.places, self.values, self.slopes)
        return tuple(table.gather(1, below + shift) for table in tables for shift in (0, 1))


def _with_tails(
    x: Tensor, low: Tensor, high: Tensor, y: Tensor, ends: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor]
) -> Tensor:
    """Replace y beyond [low, high] by the straight lines that go on there."""
    y = torch.where(x < low, ends[0] + slopes[0] * (x - low), y)
    return torch.where(x > high, ends[1] + slopes[1] * (x - high), y)
