"""Measure the tables of image densities: one resumable command each.

    python benchmarks/density_tables.py digits --output runs/digits
    python benchmarks/density_tables.py celeba16 --data-root DATA --output runs/celeba16
    python benchmarks/density_tables.py cifar32 --data-root DATA --output runs/cifar32

Every group of rows is one ``invattn density train --resume`` on one thread in its own folder, with the options that are
recommended for the data set; the other rows (flows of other libraries, the fitted front alone) are cells here. Finished
cells are kept, so that the same command goes on where it was stopped. When all are done the table is written to
docs/results as Markdown and JSON (numbers only).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import density_cells
import numpy as np
from density_markdown import write_table

from invattn._files import read_json
from invattn.experiments.density.record import DensityRecord, DensityResult

ATTENTION = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")
TITLES = {
    "convolution-certified": "extra convolution",
    "pointwise-certified": "P = I",
}


@dataclass(frozen=True)
class Group:
    """Rows that one command measures.

    Attributes:
        name: Its folder.
        options: Options of ``invattn density train`` but for data, data root, output and ``--resume``.
    """

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        data: Name of the data set.
        groups: What is trained by the command line.
        peers: Rows of other libraries, behind which front (``standard`` or ``ours``).
        needs_root: Whether the data are read from the data root.
        flow: What the flow without attention is, for the reader.
    """

    data: str
    groups: tuple[Group, ...]
    peers: tuple[tuple[str, str], ...] = ()
    needs_root: bool = True
    flow: str = "no attention"


_RELEASED = ("--attention", "dot_product", "--recipe", "released_generative")
_KINDS = ",".join(("none", "convolution", "pointwise", *ATTENTION))
TABLES = {
    "digits": Table(
        "digits",
        (Group("flows", ("--repeats", "3")),),
        peers=(
            ("normflows-spline", "standard"),
            ("nflows-maf", "standard"),
            ("normflows-residual", "standard"),
            ("freia-all-in-one", "standard"),
            ("normflows-spline", "ours"),
            ("normflows-residual", "ours"),
        ),
        needs_root=False,
        flow="ours: 6 certified residual blocks behind what is fitted",
    ),
    "celeba16": Table(
        "celeba",
        tuple(Group(f"seed-{seed}", ("--attention", _KINDS, "--seed", str(seed))) for seed in range(3)),
    ),
    "cifar32": Table(
        "cifar10",
        (
            Group("certified", ("--attention", "none,pointwise", "--steps", "300")),
            Group("attention", ("--attention", "embedded_gaussian", "--steps", "300")),
            Group("released", (*_RELEASED, "--attention-positions", "0:-1", "--steps", "300")),
        ),
    ),
}


def run_group(group: Group, table: Table, *, data_root: Path | None, output: Path) -> list[dict[str, Any]]:
    """Run a group, or skip what is finished of it; return a row for each training."""
    folder = output / group.name
    options = ["train", "--data", table.data, *group.options, "--resume", "--log-every", "0", "--accelerator", "cpu"]
    if data_root is not None:
        options += ["--data-root", str(data_root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "invattn", "density", *options, "--output", str(folder)]
    subprocess.run(command, check=True, env=environment)
    return rows_of(folder, flow=table.flow)


def rows_of(folder: Path, *, flow: str) -> list[dict[str, Any]]:
    """Return a row for each training of a finished run.

    Args:
        folder: Of the run.
        flow: Title of the flow without attention.
    """
    record = DensityRecord.from_json(read_json(folder / "results.json"))
    titles = TITLES | {"none-certified": flow}
    return [_row(result, folder, record, titles) for result in record.results]


def _row(result: DensityResult, folder: Path, record: DensityRecord, titles: dict[str, str]) -> dict[str, Any]:
    repeat = int(result.extra["repeat"])
    name = result.variant if repeat == 0 else f"{result.variant}-{repeat}"
    with np.load(folder / "artifacts" / f"{name}.npz") as arrays:
        bits = arrays["nats"] / np.log(2)
    metrics = result.metrics
    title = titles.get(result.variant, "certified attention, " + result.variant.removesuffix("-certified"))
    return {
        "row": result.variant,
        "title": title if result.variant.endswith("-certified") else result.variant.replace("-", ", "),
        "seed": result.seed,
        "bits": bits.tolist(),
        "refused": result.refused,
        "median": metrics.median,
        "outliers": metrics.outliers,
        "estimator_error": metrics.estimator_error,
        "inverse_error": metrics.inverse_error_max,
        "radius": metrics.spectral_radius_max,
        "cpu_seconds": result.cpu_seconds,
        "parameters": result.parameters,
        "references": record.data["references"] or {},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data-root", type=Path, help="folder with celeba and cifar10")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    options = parser.parse_args(arguments)
    table = TABLES[options.table]
    if table.needs_root and options.data_root is None:
        parser.error("this table needs --data-root: the folder with celeba and cifar10.")
    root = options.data_root if table.needs_root else None
    rows = [row for group in table.groups for row in run_group(group, table, data_root=root, output=options.output)]
    config = density_cells.configuration(table.data, data_root=root, output=options.output)
    others = [density_cells.run_front(config, folder=options.output / "cells")]
    for name, front in table.peers:
        others.append(density_cells.run_peer(name, front, config, folder=options.output / "cells"))
    print(write_table(options.table, others + rows))


if __name__ == "__main__":
    main()
