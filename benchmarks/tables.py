"""Measure the reconstruction tables: one resumable command each.

    python benchmarks/tables.py table2 --data-root DATA --output runs/table2 --workers 2
    python benchmarks/tables.py large --output runs/large

Every group of cells is one ``invattn reconstruct --resume`` in a process of its own, with one thread, in its own
folder; finished cells are kept, so that the same command goes on where it was stopped. When all groups are done the
table is written to docs/results as Markdown and JSON (numbers only).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from invattn._files import atomic_write, read_json, write_json
from invattn.experiments.merged.markdown import markdown_table
from invattn.experiments.reconstruction.record import ReconstructionRecord

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


@dataclass(frozen=True)
class Group:
    """Cells that one command measures.

    Attributes:
        name: Its folder.
        options: Options of ``invattn reconstruct`` but for the data root, the output and ``--resume``.
        needs_root: Whether the data are read from the data root.
    """

    name: str
    options: tuple[str, ...]
    needs_root: bool = True


def _group(data: str, recipe: str, *, repeats: int, iterations: int | None = None) -> Group:
    options = ["--data", data, "--recipe", recipe, "--repeats", str(repeats)]
    if iterations is not None:
        options += ["--iterations", str(iterations)]
    return Group(f"{data}-{recipe}", tuple(options))


def _table2() -> list[Group]:
    """The paper's Table 2; the released code's Table was made with 100 steps, and its spread is shown on CIFAR-10."""
    groups = [_group(data, "certified", repeats=3) for data in ("cifar10", "svhn", "celeba")]
    groups += [
        _group(data, "released", repeats=3 if data == "cifar10" else 1, iterations=100)
        for data in ("cifar10", "svhn", "celeba")
    ]
    groups += [
        _group(data, recipe, repeats=1, iterations=100)
        for recipe in ("paper", "unconstrained")
        for data in ("cifar10", "svhn", "celeba")
    ]
    return groups


def _large() -> list[Group]:
    """218 x 178 crops of the embedded photographs: the sizes of the paper's Table 5."""
    common = ("--data", "photos", "--image-size", "original", "--train-size", "16", "--test-size", "16")
    common += ("--epochs", "1", "--batch-size", "1", "--repeats", "1")
    return [
        Group(f"photos-{recipe}", (*common, "--recipe", recipe), needs_root=False)
        for recipe in ("certified", "released")
    ]


TABLES = {"table2": _table2, "large": _large}


def measure(group: Group, *, data_root: Path | None, output: Path, threads: int) -> int:
    """Run one group to its end; return the exit status of its command."""
    folder = output / group.name
    command = [sys.executable, "-m", "invattn", "reconstruct", *group.options, "--output", str(folder)]
    if group.needs_root:
        if data_root is None:
            raise SystemExit("this table needs --data-root: the folder with cifar10, svhn and celeba.")
        command += ["--data-root", str(data_root)]
    if folder.exists():
        command.append("--resume")
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = output / f"{group.name}.log"
    start = time.monotonic()
    with log.open("a") as stream:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        _, wait_status, usage = os.wait4(process.pid, 0)
        status = process.returncode = os.waitstatus_to_exitcode(wait_status)
    cost = f"{time.monotonic() - start:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of CPU"
    print(f"{group.name}: exit status {status}, {cost}, peak memory {usage.ru_maxrss / 2**20:.2f} GiB (log: {log})")
    sys.stdout.flush()
    return status


def collect(table: str, groups: Sequence[Group], output: Path, data_root: Path | None) -> None:
    """Write docs/results/TABLE.md and .json from the groups that are done."""
    raw = [read_json(output / group.name / "results.json") for group in groups]
    for content in raw:
        content["command"] = _without_paths(str(content["command"]), data_root, output)
        content.get("settings", {}).pop("data_root", None)
        content.get("settings", {}).pop("output", None)
    records = [ReconstructionRecord.from_json(content) for content in raw]
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{table}.json", {"runs": raw})
    atomic_write(RESULTS / f"{table}.md", (_heading(table) + markdown_table(records)).encode())


def _heading(table: str) -> str:
    title = "Table 2, measured" if table == "table2" else "218 x 178 crops of photographs, measured"
    return f"# {title}\n\nWritten by `python benchmarks/tables.py {table}`. What it shows: [README](README.md).\n\n"


def _without_paths(command: str, data_root: Path | None, output: Path) -> str:
    text = command.replace(str(output), "RUNS")
    return text if data_root is None else text.replace(str(data_root), "DATA")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1, help="groups measured at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    options = parser.parse_args(arguments)
    groups = TABLES[options.table]()
    with ThreadPoolExecutor(options.workers) as pool:
        statuses = list(
            pool.map(
                lambda group: measure(
                    group, data_root=options.data_root, output=options.output, threads=options.threads
                ),
                groups,
            )
        )
    if any(statuses):
        return 1
    collect(options.table, groups, options.output, options.data_root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
