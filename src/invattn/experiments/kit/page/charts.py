"""Line and bar charts of a page: plain data in, inline SVG out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from invattn.experiments.kit.page import formatting, svg
from invattn.experiments.kit.page.artifacts import Array
from invattn.experiments.kit.page.parts import Panel

SMALLEST = 1e-17
"""Lower end of every logarithmic axis: an exact zero is drawn there."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart, ``x`` and ``y`` of shape (n,); with ``steps`` a value holds up to the next abscissa."""

    x: Array
    y: Array
    role: str
    dashed: bool = False
    steps: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a chart looks like apart from its lines; its name is unique on the page, its size in inches of 72 units.

    With ``log_y=None`` the vertical axis is logarithmic if the values span more than a decade, as after a spike in
    training: a linear axis would flatten all but the largest. ``threshold`` is a vertical line with its label.
    """

    name: str
    description: str
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool | None = False
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    threshold: tuple[float, str] | None = None
    whole_x: bool = True
    size: tuple[float, float] = (5.0, 3.3)


def line_chart(lines: Sequence[Line], chart: Chart) -> Markup:
    """Draw a chart; values that are not finite interrupt a line."""
    if chart.log_y is None:
        values = _finite([line.y for line in lines])
        chart = replace(chart, log_y=bool(values.size and values.min() > 0 and values.max() > 10 * values.min()))

    def paint(axes: Axes) -> None:
        for line in lines:
            _paint_line(axes, line, chart)
        _scale(axes, chart)
        if chart.threshold is not None:
            x, label = chart.threshold
            warn, place = svg.colour("warn"), axes.get_xaxis_transform()
            axes.axvline(x, color=warn, linewidth=1.2, linestyle=(0, (2, 2)))
            axes.text(x, 1.01, label, transform=place, ha="center", va="bottom", fontsize=10, color=warn)

    return svg.draw(paint, name=chart.name, description=chart.description, size=chart.size)


def recipe_charts(built: Sequence[tuple[str, Sequence[Line]]], chart: Chart) -> tuple[Panel, ...]:
    """Draw one chart for each recipe of the pairs (recipe, lines), in the usual order; it completes the names."""
    panels = []
    for recipe in formatting.in_order((name for name, _ in built), formatting.RECIPES):
        title = formatting.recipe(recipe)
        own = replace(chart, name=f"{chart.name}-{recipe}", description=f"{title}: {chart.description}")
        lines = [line for name, some in built if name == recipe for line in some]
        panels.append(Panel(title=title, svg=line_chart(lines, own)))
    return tuple(panels)


def _finite(arrays: Sequence[Array]) -> Array:
    values = np.concatenate([np.ravel(np.asarray(array, dtype=np.float64)) for array in arrays] or [np.zeros(0)])
    found: Array = values[np.isfinite(values)]
    return found


def _paint_line(axes: Axes, line: Line, chart: Chart) -> None:
    y = np.asarray(line.y, dtype=np.float64)
    y = np.where(np.isfinite(y), y, np.nan)
    if chart.log_y:
        y = np.maximum(y, SMALLEST)
    if chart.y_limits is not None:
        # Far outside the axes nothing is drawn anyway, and huge coordinates upset viewers.
        low, high = chart.y_limits
        y = np.minimum(y, high * 10 if chart.log_y else high + (high - low))
    axes.plot(
        line.x,
        y,
        color=svg.colour(line.role),
        linestyle=(0, (4, 2.5)) if line.dashed else "-",
        linewidth=1.3 if line.dashed else 1.8,
        drawstyle="steps-post" if line.steps else "default",
        marker="o" if len(y) == 1 else "",
    )


def _scale(axes: Axes, chart: Chart) -> None:
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    formatter = FuncFormatter(
        lambda value, _: formatting.power_of_ten(round(float(np.log10(value)))) if value > 0 else ""
    )
    for log, axis, rescale in ((chart.log_x, axes.xaxis, axes.set_xscale), (chart.log_y, axes.yaxis, axes.set_yscale)):
        if log:
            rescale("log")
            axis.set_major_locator(LogLocator(base=10.0, numticks=8))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(formatter)
    if not chart.log_y:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    if not chart.log_x and chart.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    if chart.x_limits is not None:
        axes.set_xlim(*chart.x_limits)
    if chart.y_limits is not None:
        axes.set_ylim(*chart.y_limits)


def log_limits(arrays: Sequence[Array], *, top: float = 1e6) -> tuple[float, float]:
    """Return whole decades that hold every positive finite value, from ``SMALLEST`` up to ``top``."""
    values = _finite(arrays)
    values = values[values > 0] if len(arrays) else np.ones(1)
    if values.size == 0:
        return (1e-1, 1e1)
    low, high = np.clip([values.min(), values.max()], SMALLEST, top)
    first, last = np.floor(np.log10(low)), np.ceil(np.log10(high))
    return (float(10.0**first), float(10.0 ** max(last, first + 1)))


def bar_chart(heights: Array, chart: Chart, *, roles: Sequence[str], errors: Array | None = None) -> Markup:
    """Draw bars from zero, numbered from 1, where the heights, shape (n,), are finite; ``errors`` are half-whiskers."""

    def paint(axes: Axes) -> None:
        values = np.asarray(heights, dtype=np.float64)
        finite = np.isfinite(values)
        places = np.arange(1, len(values) + 1)[finite]
        colours = [svg.colour(role) for role, shown in zip(roles, finite, strict=True) if shown]
        axes.bar(places, values[finite], width=0.7, color=colours)
        if errors is not None and finite.any():
            whiskers = np.nan_to_num(np.asarray(errors, dtype=np.float64)[finite])
            ink = svg.colour("ink")
            axes.errorbar(places, values[finite], whiskers, fmt="none", ecolor=ink, elinewidth=1, capsize=2)
        axes.axhline(0.0, color=svg.colour("muted"), linewidth=0.8)
        axes.set(xlabel=chart.x_label, ylabel=chart.y_label, xlim=(0.3, len(values) + 0.7))
        if chart.y_limits is not None:
            axes.set_ylim(*chart.y_limits)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.grid(False, axis="x")

    return svg.draw(paint, name=chart.name, description=chart.description, size=chart.size)


def common_limits(arrays: Sequence[Array]) -> tuple[float, float]:
    """Return limits that hold zero and every finite value, with a little room, for charts that are compared."""
    values = np.append(_finite(arrays), 0.0)
    low, high = float(values.min()), float(values.max())
    room = 0.08 * max(high - low, 1e-9)
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else 0.0 if low < 0 else room)
