"""The parts of a density page for point sets: samples, and where one further point is expected."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from PIL import Image

from invattn.experiments.kit.page import svg
from invattn.experiments.kit.page.artifacts import Array, Artifact, MissingPartError, collect
from invattn.experiments.kit.page.parts import Key, Panel, Part
from invattn.experiments.kit.page.pictures import picture_panel

_DRAWN = 1000
_SIDE = 400
_MASSES = (0.3, 0.6, 0.9, 0.99)
_SET_REACH = 6.5


def plane_densities(artifacts: Sequence[Artifact]) -> Part:
    """The test points, and for each variant its density on a grid and its samples."""
    built, left_out = collect(artifacts, _arrays)
    panels = []
    if built:
        points, _, _, reach = built[0][1]
        panels.append(Panel(title="Data: test points", svg=_scatter(points, reach, role="muted", name="data")))
    for artifact, (_, samples, density, reach) in built:
        name = f"{artifact.attention}-{artifact.recipe}"
        label = artifact.label
        panels.append(picture_panel(_heat(density), title=f"Density: {label}", description=f"density of {label}"))
        picture = _scatter(samples, reach, role=artifact.attention, name=name)
        panels.append(Panel(title=f"Samples: {label}", svg=picture))
    return Part(anchor="plane", panels=tuple(panels), left_out=left_out)


def _arrays(artifact: Artifact) -> tuple[Array, Array, Array, float]:
    points, samples, density, reach = artifact.take("plane_points", "plane_samples", "plane_density", "plane_reach")
    if points.shape[-1] != 2 or samples.shape[-1] != 2 or density.shape[0] != density.shape[1] or len(reach) != 1:
        raise MissingPartError("the stored arrays do not fit together")
    return points, samples, density, float(reach[0])


def _heat(log_density: Array) -> Image.Image:
    """Colour p from 0 to its 99.5th percentile on the grid, so that a single peak does not darken the rest."""
    density = np.exp(np.nan_to_num(log_density.astype(np.float64), nan=-np.inf))
    top = max(float(np.quantile(density, 0.995)), 1e-300)
    colours = matplotlib.colormaps["inferno"](np.clip(density[::-1] / top, 0.0, 1.0), bytes=True)
    return Image.fromarray(colours[..., :3]).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)


def _scatter(points: Array, reach: float, *, role: str, name: str) -> Markup:
    inside = points[np.abs(points).max(axis=1) < reach][:_DRAWN]

    def paint(axes: Axes) -> None:
        axes.set_position((0.0, 0.0, 1.0, 1.0))
        axes.scatter(inside[:, 0], inside[:, 1], s=4, color=svg.colour(role), linewidths=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        axes.set_axis_off()

    return svg.draw(paint, name=f"plane-{name}", description=f"{len(inside)} points: {name}", size=(3.4, 3.4))


def sets_part(artifacts: Sequence[Artifact]) -> Part:
    """Sets of the data, and sets sampled from each flow."""
    built, left_out = collect(artifacts, lambda artifact: artifact.take("real_sets", "sampled_sets"))
    panels = []
    if built:
        panels.append(Panel(title="Data: test sets", svg=_set_scatter(built[0][1][0], "muted", "data")))
    for artifact, (_, sampled) in built:
        chart = _set_scatter(sampled, artifact.attention, f"{artifact.attention}-{artifact.recipe}")
        panels.append(Panel(title=f"Samples: {artifact.label}", svg=chart))
    return Part(anchor="samples", panels=tuple(panels), left_out=left_out)


def _set_scatter(sets: Array, role: str, name: str) -> Markup:
    """Draw several sets, each in a square of its own within one pair of axes."""
    if sets.shape[-1] != 2:
        raise MissingPartError("the stored sets are not in the plane")
    columns = 3
    width = 2 * _SET_REACH

    def paint(axes: Axes) -> None:
        rows = -(-len(sets) // columns)
        for number, points in enumerate(sets):
            row, column = divmod(number, columns)
            inside = np.abs(points).max(axis=1) < _SET_REACH
            place = points[inside] + np.array([column * width, -row * width])
            axes.scatter(place[:, 0], place[:, 1], s=5, color=svg.colour(role), linewidths=0)
        for line in range(1, columns):
            axes.axvline(line * width - _SET_REACH, color=svg.colour("grid"), linewidth=1)
        for line in range(1, rows):
            axes.axhline(-line * width + _SET_REACH, color=svg.colour("grid"), linewidth=1)
        axes.set(xlim=(-_SET_REACH, columns * width - _SET_REACH), ylim=(_SET_REACH - rows * width, _SET_REACH))
        _bare(axes)

    height = -(-len(sets) // columns) / columns
    return svg.draw(paint, name=f"sets-{name}", description=f"point sets: {name}", size=(4.6, 4.6 * height + 0.4))


def conditionals_part(artifacts: Sequence[Artifact]) -> Part:
    """Where one further point is expected after some points of a set have arrived."""

    def build(artifact: Artifact) -> list[Panel]:
        names = ("conditional", "conditional_points", "conditional_arrived", "conditional_reach")
        densities, points, arrived, reach = artifact.take(*names)
        if len(densities) != len(arrived) or points.shape[-1] != 2 or len(points) < max(arrived):
            raise MissingPartError("the stored arrays do not fit together")
        return [
            Panel(
                title=f"{artifact.label}, {int(count)} points",
                svg=_contours(density, points[: int(count)], float(reach[0]), f"{artifact.attention}-{int(count)}"),
            )
            for density, count in zip(densities, arrived, strict=True)
        ]

    built, left_out = collect(artifacts, build)
    words = "of the probability lies within"
    keys = (Key(role=f"step{4 - rank}", label=f"{mass:.0%} {words}") for rank, mass in enumerate(_MASSES))
    panels = tuple(panel for _, some in built for panel in some)
    return Part(anchor="conditional", panels=panels, keys=tuple(keys) if built else (), left_out=left_out)


def _contours(log_density: Array, points: Array, reach: float, name: str) -> Markup:
    side = np.linspace(-reach, reach, log_density.shape[-1])
    levels = mass_levels(log_density)

    def paint(axes: Axes) -> None:
        for rank, level in enumerate(levels):
            colour = svg.colour(f"step{4 - rank}")
            if np.isfinite(level) and log_density.min() < level < log_density.max():
                axes.contour(side, side, log_density, levels=[level], colors=[colour], linewidths=1.4, linestyles="-")
        axes.scatter(points[:, 0], points[:, 1], s=9, color=svg.colour("ink"), linewidths=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        _bare(axes)

    description = f"density of one further point after {len(points)} points of a set"
    return svg.draw(paint, name=f"conditional-{name}", description=description, size=(3.4, 3.26))


def mass_levels(log_density: Array) -> list[float]:
    """Return the levels above which 30, 60, 90 and 99 per cent of the probability on a grid lie, highest first."""
    flat = np.sort(np.ravel(np.asarray(log_density, dtype=np.float64)))[::-1]
    weights = np.exp(flat - flat[0])
    share = np.cumsum(weights) / weights.sum()
    return [float(flat[min(int(np.searchsorted(share, mass)), len(flat) - 1)]) for mass in _MASSES]


def _bare(axes: Axes) -> None:
    axes.set_aspect("equal", adjustable="box")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
