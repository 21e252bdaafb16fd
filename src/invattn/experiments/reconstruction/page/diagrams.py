"""Two diagrams of an attention block as inline SVG: the plain one, and the certified one with its inverse."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_WIDTH = 460
_Q, _K, _V, _LOGITS = 130, 240, 380, 185
_LANE = 34


class _Drawing:
    """Boxes and arrows in the page's colours; coordinates are of centres."""

    def __init__(self, height: int, description: str) -> None:
        self._height = height
        self._description = description
        self._parts: list[str] = []

    def box(self, x: int, y: int, *lines: str, width: int = 96, new: bool = False) -> None:
        """A box with one or two lines of text; ``new`` marks what the plain block does not have."""
        height = 22 + 17 * (len(lines) - 1) + 8
        self._parts.append(
            f'<rect class="{"box new" if new else "box"}" x="{x - width // 2}" y="{y - height // 2}" '
            f'width="{width}" height="{height}" rx="6"/>'
        )
        top = y - 17 * (len(lines) - 1) / 2
        for number, line in enumerate(lines):
            self.text(x, top + 17 * number + 4.5, line)

    def text(self, x: float, y: float, words: str, *, style: str = "", anchor: str = "middle") -> None:
        """Words with their base line at y; a letter after an underscore is set as an index."""
        index = r'<tspan dy="3" font-size="10">\1</tspan><tspan dy="-3">&#8203;</tspan>'
        lowered = re.sub(r"_(\w+)", index, str(escape(words)))
        self._parts.append(f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{lowered}</text>')

    def line(self, *points: tuple[int, int], arrow: bool = True) -> None:
        """A line through points, with an arrow head at its end."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self._parts.append(f'<polyline class="wire" points="{path}"/>')
        if arrow:
            (x0, y0), (x1, y1) = points[-2:]
            if x0 == x1:
                step = -8 if y1 > y0 else 8
                head = f"{x1},{y1} {x1 - 4},{y1 + step} {x1 + 4},{y1 + step}"
            else:
                step = -8 if x1 > x0 else 8
                head = f"{x1},{y1} {x1 + step},{y1 - 4} {x1 + step},{y1 + 4}"
            self._parts.append(f'<polygon class="head" points="{head}"/>')

    def plus(self, x: int, y: int) -> None:
        """The sum of two wires."""
        self._parts.append(f'<circle class="box" cx="{x}" cy="{y}" r="12"/>')
        self._parts.append(f'<path class="wire" d="M{x - 6} {y}H{x + 6}M{x} {y - 6}V{y + 6}"/>')

    def svg(self) -> Markup:
        """The finished element."""
        return Markup(
            f'<svg class="diagram" viewBox="0 0 {_WIDTH} {self._height}" role="img">'
            f"<title>{escape(self._description)}</title>{''.join(self._parts)}</svg>"
        )


def _input(drawing: _Drawing, *, first: int) -> None:
    """The input at the top and its three copies."""
    drawing.text(_K, 20, "x : N tokens x_i")
    drawing.line((_K, 28), (_K, first - 16))
    drawing.line((_K, 42), (_Q, 42), (_Q, first - 16))
    drawing.line((_K, 42), (_V, 42), (_V, first - 16))
    drawing.line((_K, 42), (_LANE, 42), arrow=False)


def _output(drawing: _Drawing, *, last: int, label: str) -> None:
    """The sum with the input, and the output below it."""
    drawing.line((_LANE, 42), (_LANE, last), (_K - 12, last))
    drawing.plus(_K, last)
    drawing.line((_K, last + 12), (_K, last + 38))
    drawing.text(_K, last + 54, label)


def plain_block() -> Markup:
    """The ordinary attention block, as in Fig. 1 of the paper."""
    drawing = _Drawing(430, "Plain attention: 1×1 convolutions, response, division by N(x), weighted sum of values")
    _input(drawing, first=82)
    for x, name in ((_Q, "query"), (_K, "key"), (_V, "value")):
        drawing.box(x, 82, "1×1 conv", name)
    drawing.line((_Q, 106), (_Q, 148))
    drawing.line((_K, 106), (_K, 148))
    drawing.box(_LOGITS, 164, "response r(q_i, k_j)", width=206)
    drawing.line((_LOGITS, 179), (_LOGITS, 213))
    drawing.box(_LOGITS, 229, "divide by N(x)", width=206)
    drawing.line((_LOGITS, 244), (_LOGITS, 278))
    drawing.line((_V, 106), (_V, 278))
    drawing.text(_LOGITS + 8, 266, "R_ij", anchor="start", style="small")
    drawing.text(_V + 8, 266, "v_j", anchor="start", style="small")
    drawing.box(_K + 16, 294, "weighted sum  Σ_j R_ij v_j", width=316)
    drawing.line((_K, 309), (_K, 344))
    _output(drawing, last=356, label="x + A(x)")
    return drawing.svg()


def certified_block() -> Markup:
    """The certified block, ours for Fig. 2 of the paper; what the plain block lacks is marked."""
    drawing = _Drawing(
        662,
        "Certified attention: 1×1 convolutions, squash, logits, logarithm of phi, softmax over j, weighted sum of "
        "values, last layer scaled so that the bound is at most c",
    )
    _input(drawing, first=82)
    for x, name in ((_Q, "W_Q"), (_K, "W_K"), (_V, "W_V")):
        drawing.box(x, 82, "1×1 conv", name)
        drawing.line((x, 106), (x, 136))
        drawing.box(x, 152, "squash σ", new=True)
    drawing.line((_Q, 167), (_Q, 206))
    drawing.line((_K, 167), (_K, 206))
    for x, name in ((_Q, "q_i"), (_K, "k_j")):
        drawing.text(x + 8, 190, name, anchor="start", style="small")
    drawing.box(_LOGITS, 222, "logits  α q_i · k_j", width=206)
    drawing.line((_LOGITS, 237), (_LOGITS, 266))
    drawing.box(_LOGITS, 282, "log φ", width=206, new=True)
    drawing.line((_LOGITS, 297), (_LOGITS, 326))
    drawing.box(_LOGITS, 342, "softmax over j", width=206, new=True)
    drawing.line((_LOGITS, 357), (_LOGITS, 392))
    drawing.line((_V, 167), (_V, 392))
    drawing.text(_LOGITS + 8, 380, "P_ij", anchor="start", style="small")
    drawing.text(_V + 8, 380, "v_j", anchor="start", style="small")
    drawing.box(_K + 16, 408, "weighted sum  Σ_j P_ij v_j", width=316)
    drawing.line((_K, 423), (_K, 458))
    drawing.box(_K + 16, 482, "W_L, scaled so that", "Lip(g) ≤ |W_L| · F(V, R) ≤ c < 1", width=316, new=True)
    drawing.line((_K, 506), (_K, 536))
    _output(drawing, last=548, label="z = x + g(x)")
    drawing.text(_K, 630, "Inverse: repeat x ← z − g(x).", style="small")
    drawing.text(_K, 648, "Each step leaves at most c times the error before it.", style="small")
    return drawing.svg()
