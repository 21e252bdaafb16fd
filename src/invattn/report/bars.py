"""Bar charts of the page: one bar for each block of a flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from invattn.report import svg
from invattn.report.artifacts import Array


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One bar chart.

    Attributes:
        values: Heights, shape (n,); what is not finite has no bar.
        roles: The page's colour variable of each bar.
        errors: Half the length of a whisker on each bar, shape (n,); None for none.
        name: Unique on the page.
        description: What it shows, in a sentence.
        x_label: Label of the horizontal axis, on which the bars are numbered from 1.
        y_label: Label of the vertical axis.
        y_limits: Ends of the vertical axis; None lets the values decide.
    """

    values: Array
    roles: Sequence[str]
    errors: Array | None = None
    name: str
    description: str
    x_label: str
    y_label: str
    y_limits: tuple[float, float] | None = None


def bar_chart(bars: Bars, *, size: tuple[float, float] = (3.7, 2.7)) -> Markup:
    """Draw bars from zero, numbered from 1."""

    def paint(axes: Axes) -> None:
        values = np.asarray(bars.values, dtype=np.float64)
        finite = np.isfinite(values)
        places = np.arange(1, len(values) + 1)
        colours = [svg.colour(role) for role, shown in zip(bars.roles, finite, strict=True) if shown]
        axes.bar(places[finite], values[finite], width=0.7, color=colours)
        if bars.errors is not None and finite.any():
            whiskers = np.nan_to_num(np.asarray(bars.errors, dtype=np.float64)[finite])
            axes.errorbar(
                places[finite], values[finite], whiskers, fmt="none", ecolor=svg.colour("ink"), elinewidth=1, capsize=2
            )
        axes.axhline(0.0, color=svg.colour("muted"), linewidth=0.8)
        axes.set_xlabel(bars.x_label)
        axes.set_ylabel(bars.y_label)
        axes.set_xlim(0.3, len(values) + 0.7)
        if bars.y_limits is not None:
            axes.set_ylim(*bars.y_limits)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.grid(False, axis="x")

    return svg.draw(paint, name=bars.name, description=bars.description, size=size)


def common_limits(arrays: Sequence[Array]) -> tuple[float, float]:
    """Return limits that hold zero and every finite value, with a little room, for charts that are compared."""
    values = np.concatenate([np.ravel(np.asarray(array, dtype=np.float64)) for array in arrays] or [np.zeros(1)])
    values = np.append(values[np.isfinite(values)], 0.0)
    low, high = float(values.min()), float(values.max())
    room = 0.08 * max(high - low, 1e-9)
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else 0.0 if low < 0 else room)
