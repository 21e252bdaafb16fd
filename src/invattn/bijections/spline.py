"""A learned monotone spline of each channel, started from the quantiles of data."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from invattn.bijections.closed_form import ChannelMap, channel_axis
from invattn.bijections.data_dependent import DataDependent
from invattn.bijections.rational_quadratic import RationalQuadratic
from invattn.bijections.trivial import trivial_solution
from invattn.solvers import Solution

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

    places: Tensor
    fitted: Tensor

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
        self.check_input(x)
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

    @property
    def is_fitted(self) -> bool:
        return bool(self.fitted)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self._like(self._spline(x.dtype)(self._rows(x))[0], x)

    def inverse(self, z: Tensor) -> Tensor:
        self.check_input(z)
        return self._like(self._spline(z.dtype).inverse(self._rows(z)), z)

    def log_det(self, x: Tensor) -> Tensor:
        return self.forward_and_log_det(x)[1]

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.check_input(x)
        z, log_slope = self._spline(x.dtype)(self._rows(x))
        return self._like(z, x), self._like(log_slope, x).flatten(1).sum(dim=1)

    def solve(self, z: Tensor) -> Solution:
        """Apply the inverse; no error bound, as its rounding is not bounded here."""
        with torch.no_grad():
            return replace(trivial_solution(self.inverse(z)), error_bound=None)

    def stretch(self) -> tuple[float, float]:
        with torch.no_grad():
            return self._spline(torch.float64).slopes_within()

    def _spline(self, dtype: torch.dtype) -> RationalQuadratic:
        values = torch.cat([self.start[:, None], self.start[:, None] + self.log_steps.exp().cumsum(dim=1)], dim=1)
        return RationalQuadratic(self.places.to(dtype), values.to(dtype), self.log_slopes.exp().to(dtype))

    def _rows(self, x: Tensor) -> Tensor:
        """Return x with shape (C, everything else)."""
        return x.movedim(channel_axis(x), 0).reshape(self.channels, -1).contiguous()

    def _like(self, rows: Tensor, x: Tensor) -> Tensor:
        """Undo ``_rows``."""
        axis = channel_axis(x)
        return rows.reshape(x.movedim(axis, 0).shape).movedim(0, axis)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, knots={self.knots}"


def _quantiles(rows: Tensor, levels: Tensor) -> Tensor:
    """Return quantiles of each row, shape (rows, levels), linear between its sorted values."""
    ordered = rows.sort(dim=1).values
    position = levels * (rows.shape[1] - 1)
    below = position.floor().long().clamp(max=rows.shape[1] - 2)
    return ordered[:, below].lerp(ordered[:, below + 1], (position - below).expand(len(rows), -1))
