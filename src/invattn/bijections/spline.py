"""A learned monotone spline of each channel, started from the quantiles of data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invattn.bijections.affine import DataDependent
from invattn.bijections.closed_form import ChannelMap


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


_REACH = 3.0  # knots lie within so many standard deviations of a normal distribution
_LEAST_BEYOND = 5  # and at least so many samples beyond the outermost on each side
_LEAST_GAP = 1e-3  # of two neighbouring knots, in standard deviations: keeps slopes finite where values repeat


class MonotoneSpline(ChannelMap, DataDependent):
    """z = s_c(x) for every entry of channel c: a monotone rational-quadratic spline with straight tails.

    Fitted to data, it carries quantiles of each channel to those of a standard normal distribution (marginal
    Gaussianisation); values and slopes at the knots are then learned, their places stay. The inverse is a formula.
    Before it is fitted it is the identity. For one spline an entry of an image, squeeze the image to one pixel first.

    Args:
        channels: C.
        knots: Knots of each spline, at least 2.

    References:
        Durkan et al. 2019 (Neural spline flows), Sec. 3.1; Chen and Gopinath 2000 (Gaussianisation).
    """

    certified = True  # values increase from knot to knot, slopes are positive
    places: Tensor

    def __init__(self, channels: int, *, knots: int = 16) -> None:
        super().__init__(channels)
        if knots < 2:
            raise ValueError(f"a spline has at least 2 knots; got {knots}.")
        self.knots = knots
        places = torch.linspace(-_REACH, _REACH, knots).repeat(channels, 1)
        self.register_buffer("places", places)
        self.register_buffer("fitted", torch.tensor(False))
        self.start = nn.Parameter(places[:, 0].clone())
        self.log_steps = nn.Parameter(places.diff(dim=1).log())
        self.log_slopes = nn.Parameter(torch.zeros(channels, knots))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Carry quantiles of data to those of a standard normal distribution.

        Args:
            x: Inputs, at least two values a channel.

        Raises:
            ValueError: If x is not finite or has another shape.
        """
        rows = self._rows(x).double()
        if rows.shape[1] < 2 or not bool(rows.isfinite().all()):
            raise ValueError("a spline starts from at least two finite values a channel. Check the first batch.")
        outermost = -torch.special.ndtri(rows.new_tensor(min(0.25, _LEAST_BEYOND / rows.shape[1])))
        values = torch.linspace(-1, 1, self.knots, dtype=rows.dtype, device=rows.device) * min(_REACH, float(outermost))
        places = _quantiles(rows, torch.special.ndtr(values))
        spread = rows.std(dim=1, correction=0, keepdim=True)
        gaps = torch.maximum(places.diff(dim=1), _LEAST_GAP * torch.where(spread > 0, spread, 1))
        places = torch.cat([places[:, :1], places[:, :1] + gaps.cumsum(dim=1)], dim=1)
        steps = values.diff().expand_as(gaps)
        log_secants = (steps / gaps).log()
        ends = log_secants[:, :1], log_secants[:, -1:]
        self.places.copy_(places)
        self.start.copy_(values[0].expand(self.channels))
        self.log_steps.copy_(steps.log())
        self.log_slopes.copy_(torch.cat([ends[0], (log_secants[:, 1:] + log_secants[:, :-1]) / 2, ends[1]], dim=1))
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        return self._like(self._spline(x.dtype)(self._rows(x))[0], x)

    def inverse(self, z: Tensor) -> Tensor:
        return self._like(self._spline(z.dtype).inverse(self._rows(z)), z)

    def log_det(self, x: Tensor) -> Tensor:
        return self.forward_and_log_det(x)[1]

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self._spline(x.dtype)(self._rows(x))
        return self._like(z, x), self._like(log_slope, x).flatten(1).sum(dim=1)

    def rounding_bound(self, x: Tensor, z: Tensor) -> None:
        """Return None: the rounding of the formula is not bounded here."""

    def stretch(self) -> tuple[float, float]:
        with torch.no_grad():
            return self._spline(torch.float64).slopes_within()

    def _spline(self, dtype: torch.dtype) -> RationalQuadratic:
        values = torch.cat([self.start[:, None], self.start[:, None] + self.log_steps.exp().cumsum(dim=1)], dim=1)
        return RationalQuadratic(self.places.to(dtype), values.to(dtype), self.log_slopes.exp().to(dtype))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, knots={self.knots}"


def _quantiles(rows: Tensor, levels: Tensor) -> Tensor:
    """Return quantiles of each row, shape (rows, levels), linear between its sorted values."""
    ordered = rows.sort(dim=1).values
    position = levels * (rows.shape[1] - 1)
    below = position.floor().long().clamp(max=rows.shape[1] - 2)
    return ordered[:, below].lerp(ordered[:, below + 1], (position - below).expand(len(rows), -1))
