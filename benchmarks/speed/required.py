"""What is required of the figures, and whether the measured rows meet it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]
CPU, WALL = "cpu_seconds", "wall_seconds_2_threads"
MEBI = 2**20
TOKENS = (9701, 38804, 131072, 262144)


@dataclass(frozen=True)
class Required:
    """One figure.

    Attributes:
        what: The figure in words.
        bound: What is asked of it.
        at_least: Whether the bound is the least (else the largest) value.
        figure: Computes it from the rows; None where a row is not measured yet.
        unit: Of figure and bound.
        beside: The same figure by the clock on the wall, on two threads, to be shown beside; None where there is none.
    """

    what: str
    bound: float
    figure: Callable[[Rows], float | None]
    at_least: bool = True
    unit: str = "x"
    beside: Callable[[Rows], float | None] | None = None

    def verdict(self, rows: Rows) -> tuple[float | None, str]:
        """Return the figure, and pass, FAIL or not measured."""
        value = self.figure(rows)
        if value is None:
            return None, "not measured"
        met = value >= self.bound if self.at_least else value <= self.bound
        return value, "pass" if met else "FAIL"


def ratio(row: Mapping[str, Any], over: str, *, clock: str = CPU) -> float | None:
    """Return how many times faster ours is than another variant, the median over the rounds."""
    times = row.get(clock)
    if times is None or over not in times:
        return None
    return statistics.median(other / own for own, other in zip(times[row["ours"]], times[over], strict=True))


def median(row: Mapping[str, Any], variant: str, *, clock: str = CPU) -> float | None:
    """Return the median of one variant's seconds."""
    times = row.get(clock, {})
    return statistics.median(times[variant]) if variant in times else None


def faster(name: str, over: str = "formula", *, clock: str = CPU) -> Callable[[Rows], float | None]:
    """Return the figure that is the ratio of a row."""
    return lambda rows: ratio(rows.get(name, {}), over, clock=clock)


def speed(what: str, bound: float, name: str, over: str = "formula") -> Required:
    """Return what is required of the ratio of a row."""
    return Required(what, bound, faster(name, over), beside=faster(name, over, clock=WALL))


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of log y over log x by least squares; None for fewer than two points."""
    if len(points) < 2:
        return None
    x, y = ([math.log(point[i]) for point in points] for i in (0, 1))
    middle = statistics.fmean(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def growth(rows: Rows, form: str, operation: str, variant: str, *, least: int = 0) -> list[tuple[float, float]]:
    """Return (tokens, median seconds) of one variant from a number of tokens on."""
    start = f"growth[{form}-{operation}-"
    found = []
    for name, row in rows.items():
        tokens = int(name[len(start) : -1]) if name.startswith(start) else -1
        seconds = median(row, variant)
        if tokens >= max(least, 0) and seconds is not None:
            found.append((float(tokens), seconds))
    return sorted(found)


def _grown(rows: Rows) -> float | None:
    """Return the exponent over the sizes that are required, once all of them are measured."""
    points = growth(rows, "elu+1-row-sum", "value", "chosen", least=TOKENS[0])
    return exponent(points) if [int(tokens) for tokens, _ in points] == list(TOKENS) else None


def _seconds(name: str) -> Callable[[Rows], float | None]:
    return lambda rows: median(rows.get(name, {}), "chosen")


def _peak(name: str) -> Callable[[Rows], float | None]:
    def figure(rows: Rows) -> float | None:
        peak = rows.get(name, {}).get("peak_bytes")
        return None if peak is None else peak["chosen"] / MEBI

    return figure


def _peak_share(name: str) -> Callable[[Rows], float | None]:
    def figure(rows: Rows) -> float | None:
        peak = rows.get(name, {}).get("peak_bytes")
        return None if peak is None else peak["chosen"] / peak["formula"]

    return figure


def _memory_exponent(rows: Rows) -> float | None:
    """Return the exponent of the column gradient's memory over 9,701 to 38,804 tokens."""
    points = []
    for tokens in (9701, 19402, 38804):
        peak = _peak(f"memory[exp-column-gradient-{tokens}]")(rows)
        if peak is None:
            return None
        points.append((float(tokens), peak))
    return exponent(points)


def _worst_small(rows: Rows) -> float | None:
    """Return the least ratio at 256 tokens and batch 64, once all rows are measured."""
    found = [ratio(row, "formula") for name, row in rows.items() if name.startswith("small[")]
    ratios = [value for value in found if value is not None]
    return min(ratios) if len(ratios) == 16 else None


def _evaluations(rows: Rows) -> float | None:
    found = [row["evaluations"] for name, row in rows.items() if name.startswith("inverse[")]
    return max(found) if len(found) == 4 else None


def _large(form: str, bounds: Mapping[str, float], title: str) -> list[Required]:
    words = {"value": "forward", "gradient": "vjp", "derivative": "jvp", "log-det": "log-det training step"}
    return [
        speed(f"{title}, {words[operation]} over the formula", bound, f"large[{form}-{operation}]")
        for operation, bound in bounds.items()
    ]


FAR = "elu+1-row-sum-value-262144"
REQUIRED: tuple[Required, ...] = (
    *_large("elu+1-row-sum", {"value": 100, "gradient": 50, "log-det": 30}, "concatenation"),
    Required("concatenation, forward at N = 262,144", 1.0, _seconds(f"growth[{FAR}]"), at_least=False, unit=" s"),
    Required("concatenation, memory of that", 500, _peak(f"memory[{FAR}]"), at_least=False, unit=" MiB"),
    Required("concatenation, exponent of time, N = 9,701 to 262,144", 1.25, _grown, at_least=False, unit=""),
    speed("row softmax, forward over torch's fused kernel", 0.85, "large[exp-row-value]", "sdpa"),
    *_large("exp-row", {"value": 5, "gradient": 3.5, "derivative": 2.5, "log-det": 2}, "row softmax"),
    Required(
        "row softmax, log-det step, memory over the formula's",
        0.1,
        _peak_share("memory[exp-row-log-det-9701]"),
        at_least=False,
        unit="",
    ),
    *_large("exp-column", {"value": 3.5, "gradient": 1.5, "log-det": 1.3}, "column softmax"),
    Required("column softmax, vjp, exponent of memory", 1.25, _memory_exponent, at_least=False, unit=""),
    Required("N = 256, batch 64: the slowest of 16 rows over the formula", 1 / 1.15, _worst_small),
    *(
        speed(f"inverse, {kind}, over 50 plain steps", bound, f"inverse[{kind}]", "50 plain steps")
        for kind, bound in (("gaussian", 5), ("embedded_gaussian", 5), ("concatenation", 5), ("dot_product", 3.5))
    ),
    Required("inverse, mean evaluations, the most of four kinds", 9, _evaluations, at_least=False, unit=""),
    speed("training step of 32 blocks over normflows", 1.5, "flow_step", "normflows"),
)
