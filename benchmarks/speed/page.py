"""Write docs/benchmarks.md and its plots from a file of rows.

python benchmarks/speed/page.py [benchmarks/results/<machine>.json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from required import CPU, MEBI, REQUIRED, WALL, Rows, exponent, growth, median, ratio

from invattn._errors import DataError
from invattn._files import atomic_write, read_json

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    ("large", "One image of 218 x 178 pixels (N = 9,701, C = 12, batch 1)"),
    ("small", "64 images of 32 x 32 pixels (N = 256, C = 12, batch 64)"),
    ("inverse", "Inverse of trained certified blocks, 64 images of 12 x 16 x 16"),
    ("flow_step", "Training step of 32 residual blocks on 16 images of 3 x 32 x 32"),
    ("vector_step", "Training step of one residual block 64 - 128 - 128 - 64 on 256 vectors"),
)
CURVES = (
    ("elu+1-row-sum", "chosen", "concatenation, sorted"),
    ("elu+1-row-sum", "formula", "concatenation, formula"),
    ("exp-row", "chosen", "row softmax, ours"),
    ("exp-row", "formula", "row softmax, formula"),
    ("exp-column", "chosen", "column softmax, ours"),
)


def markdown(content: Mapping[str, Any], *, source: str) -> str:
    """Return the page.

    Args:
        content: Of the file of rows.
        source: Its name, as the page shall state it.
    """
    rows, machine = content["rows"], content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        f"Written by `python benchmarks/speed/page.py` from `{source}`. `make bench` measures rows that the",
        "file lacks and writes this page; `make bench BENCH=--wall` adds wall time on two threads.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['vector_instructions']}. {versions}.",
        "",
        "Seconds of the processor on one thread; variants take turns in one process; a ratio is the median over",
        "rounds of (seconds of the other) / (seconds of ours): above 1, ours is faster. `formula` computes the whole",
        "map; `sdpa` is torch's scaled_dot_product_attention, which has no second derivatives; `chosen` is what the",
        "table of back ends takes. The log-det step is five gradients, one second-order product, and its gradient by",
        "tokens and weights. `load` is the load average of the machine: above 2 it was shared, and ratios of few",
        "rounds are good to about 30 %.",
        "",
        "## Required and measured",
        "",
        *_requirements(rows),
    ]
    for start, title in PARTS:
        found = {name: row for name, row in rows.items() if name == start or name.startswith(f"{start}[")}
        if found:
            lines += ["", f"## {title}", "", *_times(found)]
    if "flow_profile" in rows:
        lines += ["", "## Where the training step of the flow goes", "", *_profile(rows["flow_profile"])]
    lines += ["", "## Growth with the number of tokens", "", "![Seconds over tokens](images/benchmarks-growth.svg)", ""]
    lines += _growth(rows)
    lines += ["", "## Memory at the peak, beyond that of the process before", "", *_memory(rows), ""]
    return "\n".join(lines)


def _requirements(rows: Rows) -> list[str]:
    lines = ["| figure | required | measured | | wall, 2 threads |", "|---|---|---|---|---|"]
    for required in REQUIRED:
        value, verdict = required.verdict(rows)
        sign = "≥" if required.at_least else "≤"
        shown = "–" if value is None else f"{value:.3g}{required.unit}"
        wall = None if required.beside is None else required.beside(rows)
        cells = (required.what, f"{sign} {required.bound:.3g}{required.unit}", shown, verdict, _times_faster(wall))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _times(rows: Rows) -> list[str]:
    lines = [
        "| row | variant | CPU, 1 thread | ratio | rounds | load | wall, 2 threads | ratio | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        for variant, seconds in row.get(CPU, {}).items():
            own = variant == row["ours"]
            speeds = ["" if own else _times_faster(ratio(row, variant, clock=clock)) for clock in (CPU, WALL)]
            wall = median(row, variant, clock=WALL)
            shown = "–" if wall is None else _duration(wall)
            loads = [f"{row[name]:.2g}" if name in row else "–" for name in ("load", "wall_load")]
            title = _title(name) if own else ""
            if own and "evaluations" in row:
                title += f" ({row['evaluations']:.2f} evaluations, error {row['error']:.0e})"
            own_cpu = _duration(median(row, variant) or 0)
            cells = (title, variant, own_cpu, speeds[0], len(seconds), loads[0], shown, speeds[1], loads[1])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _profile(row: Mapping[str, Any]) -> list[str]:
    lines = [
        f"`python benchmarks/speed/profile_flow.py --blocks {row['blocks']}`, wall time at load {row['load']}.",
        "",
    ]
    lines += ["| | seconds | operators: share of the time (calls) |", "|---|---|---|"]
    for name, (seconds, operators) in row["profile"].items():
        shown = ", ".join(f"{operator} {share:.0%} ({calls})" for operator, share, calls in operators)
        lines.append(f"| {name} | {seconds:.3g} | {shown} |")
    return lines


def _growth(rows: Rows) -> list[str]:
    lines = [
        "| form | operation | variant | seconds at N | exponent from N = 1,024 | from N = 9,701 |",
        "|---|---|---|---|---|---|",
    ]
    for form in ("elu+1-row-sum", "exp-row", "exp-column"):
        for operation in ("value", "gradient", "log-det"):
            for variant in ("chosen", "formula"):
                points = growth(rows, form, operation, variant)
                if points:
                    shown = ", ".join(f"{int(tokens):,}: {_duration(seconds)}" for tokens, seconds in points)
                    slopes = [exponent(growth(rows, form, operation, variant, least=least)) for least in (1024, 9701)]
                    ends = " | ".join("–" if slope is None else f"{slope:.2f}" for slope in slopes)
                    lines.append(f"| {form} | {operation} | {variant} | {shown} | {ends} |")
    return lines


def _memory(rows: Rows) -> list[str]:
    lines = ["| row | ours | formula |", "|---|---|---|"]
    for name, row in rows.items():
        if "peak_bytes" in row:
            cells = [
                f"{row['peak_bytes'][key] / MEBI:,.0f} MiB" if key in row["peak_bytes"] else "–"
                for key in ("chosen", "formula")
            ]
            lines.append(f"| {_title(name)} | {' | '.join(cells)} |")
    return lines


def _title(name: str) -> str:
    """Return the parameters of a row, or its name where it has none."""
    return name.partition("[")[2].removesuffix("]") or name.replace("_", " ")


def _times_faster(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}x"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def plot(rows: Rows, path: Path) -> None:
    """Draw seconds over tokens, both logarithmic, as an SVG that is the same for the same rows."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="tokens", ylabel="seconds of the processor, forward")
    for form, variant, label in CURVES:
        points = growth(rows, form, "value", variant)
        if points:
            style = "--" if variant == "formula" else "-"
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=label)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    atomic_write(path, drawn.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="?", help="file of rows; the only one of benchmarks/results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args(arguments)
    found = [options.rows] if options.rows else sorted((ROOT / "benchmarks" / "results").glob("*-cores.json"))
    if len(found) != 1:
        print(f"page.py: there are {len(found)} files of rows in benchmarks/results; name one.", file=sys.stderr)
        return 2
    try:
        content = read_json(found[0])
    except DataError as error:
        print(f"page.py: {error}", file=sys.stderr)
        return 1
    (options.docs / "images").mkdir(parents=True, exist_ok=True)
    plot(content["rows"], options.docs / "images" / "benchmarks-growth.svg")
    page = markdown(content, source=f"benchmarks/results/{found[0].name}")
    atomic_write(options.docs / "benchmarks.md", page.encode())
    print(f"page: {options.docs / 'benchmarks.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
