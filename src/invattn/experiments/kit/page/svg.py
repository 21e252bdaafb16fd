"""Matplotlib figures as inline SVG that takes its colours and its font from the page, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invattn._kinds import KINDS

# Stand-ins drawn by matplotlib and replaced by the page's variables afterwards: a figure then follows the page's theme.
_ROLES = (
    *("ink", "muted", "grid", "warn"),
    *(*KINDS, "pointwise", "convolution", "other"),
    *("step1", "step2", "step3", "step4"),
)
_STAND_INS = {name: f"#0101{index:02x}" for index, name in enumerate(_ROLES, start=16)}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 11.0,
    "axes.labelsize": 11.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _STAND_INS["muted"],
    "axes.labelcolor": _STAND_INS["ink"],
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": _STAND_INS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": _STAND_INS["muted"],
    "ytick.color": _STAND_INS["muted"],
    "xtick.labelcolor": _STAND_INS["ink"],
    "ytick.labelcolor": _STAND_INS["ink"],
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "text.color": _STAND_INS["ink"],
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}


def colour(role: str) -> str:
    """Return the drawing colour that becomes the page's variable of a role; unknown roles share one."""
    return _STAND_INS.get(role, _STAND_INS["other"])


def variable(role: str) -> str:
    """Return the name of the page's colour variable of a role, such as ``--dot-product``; unknown roles share one."""
    return f"--{(role if role in _STAND_INS else 'other').replace('_', '-')}"


def draw(
    paint: Callable[[Axes], None], *, name: str, description: str, size: tuple[float, float] = (5.0, 3.3)
) -> Markup:
    """Draw one set of axes and return it as inline SVG.

    Matplotlib's global state is left alone: the style holds within this call, a user's own style does not enter, and
    the figure is never registered with pyplot, so that there is nothing to close.
    The name keeps its identifiers apart from those of other figures on the page; the size is in inches of 72 units.
    """
    stream = io.BytesIO()
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=size)
        # Fixed margins in inches, so that charts side by side are aligned.
        (width, height), left, right, bottom, top = size, 0.80, 0.12, 0.52, 0.26
        room = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
        paint(figure.add_axes(room))
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue().decode("utf-8"), description)


def _inline(text: str, description: str) -> Markup:
    """Reduce a stand-alone SVG file to an element of an HTML page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # Groups are never referred to; their names ("axes_1") would repeat from figure to figure.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None, "matplotlib writes a viewBox"
    head = f'<svg {view_box.group()} role="img" xmlns:xlink="http://www.w3.org/1999/xlink"><title>{escape(description)}</title>'
    text = head + text[text.index(">") + 1 :]
    for role, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, f"var({variable(role)})")
    return Markup(text)
