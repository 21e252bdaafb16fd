"""Measure what attention contributes to a density of point sets: one resumable command.

    python benchmarks/density_sets.py --output runs/density-sets

Every group is one ``invattn density train --resume`` on one thread in its own folder; finished cells are kept, so that
the same command goes on where it was stopped. When all groups are done the table is written to docs/results as
Markdown and JSON (numbers only).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.density.record import DensityRecord, DensityResult

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
NAME = "density_sets"


@dataclass(frozen=True)
class Group:
    """Rows that one command measures.

    Attributes:
        name: Its folder.
        title: What it is, for the table.
        options: Options of ``invattn density train`` but for the output and ``--resume``.
    """

    name: str
    title: str
    options: tuple[str, ...]


GROUPS = (
    Group(
        "default",
        "4 x (3 attention, MLP), 250 steps",
        ("--attention", "embedded_gaussian,pointwise,uniform,none", "--repeats", "3"),
    ),
    Group("long", "4 x (3 attention, MLP), 550 steps", ("--attention", "embedded_gaussian", "--steps", "550")),
    Group(
        "plain",
        "6 x (1 attention, MLP), 250 steps",
        ("--attention", "embedded_gaussian", "--blocks", "6", "--attention-layers", "1"),
    ),
)


def run_group(group: Group, output: Path) -> DensityRecord:
    """Run a group, or skip what is finished of it, and return its record."""
    folder = output / group.name
    options = ["train", "--data", "sets", *group.options, "--resume", "--output", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "invattn", "density", *options], check=True, env=environment)
    return DensityRecord.from_json(read_json(folder / "results.json"))


def table(records: Sequence[tuple[Group, DensityRecord]]) -> str:
    """Return the table in Markdown, a row for each variant, with every seed's number."""
    lines = [
        "# Density of point sets",
        "",
        "`make density-sets`, one thread. -log p / d in nats per dimension on 500 test sets that all rows share, with",
        "exact log-determinants. The seeds are those of weights and training sets. The standard error over the test",
        "sets is about 0.015 for every row; as all share them, differences between rows are more certain than that.",
        "",
        "| variant | model | nats/dim of each seed | mean | inverse error, worst | radius, largest | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for group, record in records:
        for variant in dict.fromkeys(result.variant for result in record.results):
            lines.append(_row(group, [result for result in record.results if result.variant == variant]))
    for name, value in (records[0][1].data.get("references") or {}).items():
        lines.append(f"| *{name}* | | | {value:.3f} | | | |")
    return "\n".join([*lines, ""])


def _row(group: Group, results: Sequence[DensityResult]) -> str:
    values = [result.metrics.per_dim for result in results]
    known = [value for value in values if value is not None]
    each = ", ".join("refused" if value is None else f"{value:.3f}" for value in values)
    mean = f"{statistics.fmean(known):.3f}" if len(known) == len(values) else "-"
    inverse = max(result.metrics.inverse_error_max for result in results)
    radius = max(result.metrics.spectral_radius_max for result in results)
    seconds = statistics.fmean(result.cpu_seconds for result in results)
    model = group.title if "none" not in results[0].variant else group.title.replace("3 attention, ", "")
    return f"| {results[0].variant} | {model} | {each} | {mean} | {inverse:.1e} | {radius:.3f} | {seconds:.0f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args(arguments)
    records = [(group, run_group(group, options.output)) for group in GROUPS]
    options.results.mkdir(parents=True, exist_ok=True)
    atomic_write(options.results / f"{NAME}.md", table(records).encode())
    plain = {group.name: _without_losses(record) for group, record in records}
    write_json(options.results / f"{NAME}.json", plain)
    print(table(records))


def _without_losses(record: DensityRecord) -> dict[str, object]:
    plain = record.to_json()
    for result in plain["results"]:
        del result["train_loss"]
    return plain


if __name__ == "__main__":
    main()
