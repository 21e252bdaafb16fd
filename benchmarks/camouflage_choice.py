"""Show what the learning rate and epochs of ``camouflage train --quick`` were chosen on: one resumable command.

    OMP_NUM_THREADS=1 python benchmarks/camouflage_choice.py --output camouflage-choice-output

The test pictures are not looked at: networks learn from pairs of 14 of the 17 training pictures and are measured on
pairs of the other three. Finished networks are kept. The table is written to docs/results as Markdown and JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from invattn._files import atomic_write, write_json
from invattn.experiments.camouflage import synthetic as synthetic_camouflage
from invattn.experiments.camouflage.config import QUICK, CamouflageConfig
from invattn.experiments.camouflage.page.tables import label_of, ordered_groups
from invattn.experiments.camouflage.record import CamouflageRecord
from invattn.experiments.camouflage.run import run_camouflage
from invattn.experiments.kit.progress import SilentProgress

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

HELD_OUT = ("grass.png", "ihc.png", "motorcycle_left.png")
"""Training pictures that the networks are measured on."""

SETTINGS = ((2, 3e-3), (2, 1.5e-3), (2, 1e-3), (2, 7e-4), (2, 3.5e-4), (3, 1.5e-3), (3, 1e-3), (3, 7e-4))
"""(epochs, learning rate); whatever the epochs, the rate falls to 0.04 of its first value."""

LAST_RATE = QUICK["lr_decay"] ** QUICK["epochs"]


@contextmanager
def held_out_pictures() -> Iterator[None]:
    """Let generated test pairs be cut from the held-out training pictures, and training pairs from the others."""
    known = synthetic_camouflage.SOURCES["train"]
    parts = {"train": tuple(name for name in known if name not in HELD_OUT), "test": HELD_OUT}
    with patch.object(synthetic_camouflage, "SOURCES", parts):
        yield


def measure(setting: tuple[int, float], *, base: CamouflageConfig) -> dict[str, Any]:
    """Train and measure the networks of one setting on one thread; return their record.

    Args:
        setting: Epochs and learning rate.
        base: All other options.
    """
    epochs, lr = setting
    torch.set_num_threads(1)
    output = base.output / f"{epochs}-epochs-{lr:g}"
    output.mkdir(parents=True, exist_ok=True)
    config = replace(base, output=output, epochs=epochs, lr=lr, lr_decay=LAST_RATE ** (1 / epochs))
    with held_out_pictures():
        return run_camouflage(config, SilentProgress()).to_json()


def markdown(records: Sequence[CamouflageRecord]) -> str:
    """Return the table: a line for each setting and network."""
    first = records[0]
    lines = [
        "# Learning rate and epochs of the quick camouflage networks",
        "",
        "Written by `benchmarks/camouflage_choice.py`. S-measure on pairs of training pictures that were held out",
        f"({', '.join(HELD_OUT)}; {first.data['sets']['synthetic']} pairs, mean mask "
        f"{first.data['mean_mask']['synthetic']:.3f}). Loss: binary cross-entropy of the first and of the last epoch.",
        "",
        "| epochs | learning rate | attention | S of each seed | S | loss |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        for rows in ordered_groups(record):
            each = [row.sets["synthetic"].s_measure for row in rows]
            start, end = (np.mean([row.train_loss[epoch] for row in rows]) for epoch in (0, -1))
            cells = [str(record.settings["epochs"]), f"{record.settings['lr']:g}"]
            cells += [label_of(rows[0].attention, rows[0].recipe), " / ".join(f"{value:.3f}" for value in each)]
            lines.append(f"| {' | '.join(cells)} | {np.mean(each):.3f} | {start:.3f} to {end:.3f} |")
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    return "\n".join([*lines, "", f"Training pairs: SHA-256 `{first.data['fingerprint']}`; {versions}."]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of each network")
    parser.add_argument("--workers", type=int, default=2, help="settings measured at the same time, one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    options = parser.parse_args(arguments)
    quick = dict(QUICK) | {"test_size": 120, "workers": 1, "preview": False, "resume": True}
    base = CamouflageConfig(
        output=options.output,
        attention="none,embedded_gaussian",
        recipe="unconstrained",
        repeats=options.repeats,
        **quick,
    )
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        contents = list(pool.map(partial(measure, base=base), SETTINGS))
    records = [CamouflageRecord.from_json(content) for content in contents]
    options.results.mkdir(parents=True, exist_ok=True)
    numbers = [
        {"epochs": record.settings["epochs"], "lr": record.settings["lr"], "attention": row.attention}
        | {"recipe": row.recipe, "seed": row.seed, "s_measure": row.sets["synthetic"].s_measure, "loss": row.train_loss}
        for record in records
        for row in record.rows
    ]
    write_json(options.results / "camouflage_choice.json", {"held_out": list(HELD_OUT), "rows": numbers})
    atomic_write(options.results / "camouflage_choice.md", markdown(records).encode())
    print(markdown(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
