"""Measure the 13 networks of camouflaged object detection on generated pairs: one resumable command.

    python benchmarks/camouflage_table.py --output camouflage-output

It is ``invattn camouflage train --data synthetic --quick --repeats 3 --resume``; finished networks are kept, so that
the same command goes on where it was stopped. When all are done the table is written to docs/results as Markdown and
JSON (numbers only).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.camouflage.page.tables import SCORES, comparisons, label_of, network_rows, ordered_groups
from invattn.experiments.camouflage.record import CamouflageRecord, CamouflageRow

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

ABOVE_MEAN_MASK = 0.15
"""By how much every network must exceed the S-measure of predicting the mean mask."""

NO_LOSS = 0.02
"""Certified attention may change the S-measure by so much."""

COMMAND = ("camouflage", "train", "--data", "synthetic", "--quick", "--resume")

_TEXT = """S, F, E: structure, mean F and mean E measure; MAE: mean absolute error; means over test images, then seeds.
Above mean mask: S of the worst seed less that of predicting the mean training mask. Loss: binary cross-entropy of the
first and of the last epoch, mean over seeds. Inverse error: |x - recovered x| / |x| of the worst module and image:
with a certificate over every test image, else over the first 16. Times on shared cores are no benchmark."""


def markdown(record: CamouflageRecord) -> str:
    """Return the tables of a run."""
    sets = record.data["sets"]
    lines = [
        "# Camouflaged object detection on generated pairs",
        "",
        "Written by `make camouflage-table`. What it shows: [README](README.md).",
        "",
        _TEXT,
        "",
    ]
    for name in sets:
        lines += [*_scores(record, name), ""]
    lines += ["## Certified less unconstrained, S-measure", "", *_differences(record), ""]
    lines += ["## Networks", "", *_networks(record), "", "## Run", "", *_run(record)]
    return "\n".join(lines) + "\n"


def failures(record: CamouflageRecord) -> list[str]:
    """Return what the run fails to show, in words; nothing if it shows everything."""
    found = []
    for row in record.rows:
        name = f"{row.variant}, seed {row.seed}"
        if not row.sets:
            found.append(f"{name}: not measured")
            continue
        if row.train_loss[-1] >= row.train_loss[0]:
            found.append(f"{name}: the loss did not fall")
        for part, metrics in row.sets.items():
            if metrics.s_measure < record.data["mean_mask"][part] + ABOVE_MEAN_MASK:
                found.append(f"{name}: S {metrics.s_measure:.3f} is less than {ABOVE_MEAN_MASK} above the mean mask")
        if row.certificate and not (row.inverse and (row.inverse["error_max"] or np.inf) <= 1e-4):
            found.append(f"{name}: a certified module was not inverted to 1e-4")
    for entry in comparisons(record):
        if abs(entry.mean) > NO_LOSS:
            found.append(f"{entry.kind}: certified less unconstrained is {entry.text()}")
    return found


def _scores(record: CamouflageRecord, name: str) -> list[str]:
    mean_mask = record.data["mean_mask"][name]
    lines = [f"## {name}: {record.data['sets'][name]} images, mean mask S {mean_mask:.3f}", ""]
    lines += _header(["attention", "S of each seed", *SCORES.values(), "above mean mask", "loss"])
    for group in ordered_groups(record):
        known = [row for row in group if name in row.sets]
        if not known:
            lines.append(_line([_label(group), "not measured", *[""] * (len(SCORES) + 2)]))
            continue
        each = [row.sets[name].s_measure for row in known]
        means = [f"{np.mean([getattr(row.sets[name], key) for row in known]):.3f}" for key in SCORES]
        first, last = (np.mean([row.train_loss[epoch] for row in known]) for epoch in (0, -1))
        cells = [_label(group), " / ".join(f"{value:.3f}" for value in each), *means]
        lines.append(_line([*cells, f"{min(each) - mean_mask:+.3f}", f"{first:.3f} to {last:.3f}"]))
    return lines


def _differences(record: CamouflageRecord) -> list[str]:
    lines = _header(["attention", "test set", "mean, 95% interval", "each seed"])
    for entry in comparisons(record):
        each = " / ".join(f"{value:+.3f}" for value in entry.differences)
        lines.append(_line([entry.label, entry.dataset, entry.text(), each]))
    return lines


def _networks(record: CamouflageRecord) -> list[str]:
    names = ["parameters", "training", "peak memory", "proven bound", "inverse error", "median", "converged"]
    lines = _header(["attention", *names])
    for row in network_rows(record):
        cells = [row.label, row.parameters, row.seconds, row.memory, row.bound, row.error_max, row.error_median]
        lines.append(_line([*cells, row.converged]))
    return lines


def _run(record: CamouflageRecord) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return [
        f"`{record.command}`",
        "",
        f"{record.data['train']} training pairs, SHA-256 `{record.data['fingerprint']}`; {versions}.",
        *(f"Note: {note}." for note in record.data["notes"]),
    ]


def _label(group: Sequence[CamouflageRow]) -> str:
    return label_of(group[0].attention, group[0].recipe)


def _header(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _without_images(content: dict[str, Any]) -> dict[str, Any]:
    """Return the record without the S-measure of every single image."""
    rows = [{key: value for key, value in row.items() if key != "s_each"} for row in content["rows"]]
    return content | {"rows": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, write; the status is 1 if something is not shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of each network")
    parser.add_argument("--workers", type=int, default=2, help="networks trained at the same time, one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables go")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    command = [sys.executable, "-m", "invattn", *COMMAND, "--output", str(options.output)]
    command += ["--repeats", str(options.repeats), "--workers", str(options.workers)]
    status = subprocess.run(command, check=False).returncode
    if status:
        return status
    content = read_json(options.output / "results.json")
    record = CamouflageRecord.from_json(content)
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / "camouflage.json", _without_images(content))
    atomic_write(options.results / "camouflage.md", markdown(record).encode())
    print(f"{len(record.rows)} networks, {time.monotonic() - started:.0f} s; {options.results / 'camouflage.md'}")
    found = failures(record)
    for failure in found:
        print(failure, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
