"""The parts of a density page for points in the plane: the density as a picture beside data and samples."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from PIL import Image

from invattn.report import svg
from invattn.report.artifacts import Array, Artifact, MissingPartError, collect
from invattn.report.parts import Panel, Part

_DRAWN = 1000
_SIDE = 400


def plane_densities(artifacts: Sequence[Artifact]) -> Part:
    """The test points, and for each variant its density on a grid and its samples."""
    built, left_out = collect(artifacts, _arrays)
    panels = []
    if built:
        points, _, _, reach = built[0][1]
        panels.append(Panel(title="Data: test points", svg=_scatter(points, reach, role="muted", name="data")))
    for artifact, (_, samples, density, reach) in built:
        name = f"{artifact.attention}-{artifact.recipe}"
        panels.append(Panel(title=f"Density: {artifact.label}", svg=_heat(density, f"density of {artifact.label}")))
        picture = _scatter(samples, reach, role=artifact.attention, name=name)
        panels.append(Panel(title=f"Samples: {artifact.label}", svg=picture))
    return Part(anchor="plane", panels=tuple(panels), left_out=tuple(left_out))


def _arrays(artifact: Artifact) -> tuple[Array, Array, Array, float]:
    points, samples, density, reach = artifact.take("plane_points", "plane_samples", "plane_density", "plane_reach")
    if points.shape[-1] != 2 or samples.shape[-1] != 2 or density.shape[0] != density.shape[1] or len(reach) != 1:
        raise MissingPartError("the stored arrays do not fit together")
    return points, samples, density, float(reach[0])


def _heat(log_density: Array, description: str) -> Markup:
    """Colour p from 0 to its 99.5th percentile on the grid, so that a single peak does not darken the rest."""
    density = np.exp(np.nan_to_num(log_density.astype(np.float64), nan=-np.inf))
    top = max(float(np.quantile(density, 0.995)), 1e-300)
    colours = matplotlib.colormaps["inferno"](np.clip(density[::-1] / top, 0.0, 1.0), bytes=True)
    image = Image.fromarray(colours[..., :3]).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    uri = base64.b64encode(stream.getvalue()).decode("ascii")
    return Markup(f'<img class="sheet" src="data:image/png;base64,{uri}" alt="{escape(description)}">')


def _scatter(points: Array, reach: float, *, role: str, name: str) -> Markup:
    inside = points[np.abs(points).max(axis=1) < reach][:_DRAWN]

    def paint(axes: Axes) -> None:
        axes.set_position((0.0, 0.0, 1.0, 1.0))
        axes.scatter(inside[:, 0], inside[:, 1], s=4, color=svg.colour(role), linewidths=0)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_axis_off()

    return svg.draw(paint, name=f"plane-{name}", description=f"{len(inside)} points: {name}", size=(3.4, 3.4))
