"""Time and memory of one training step of the full camouflage network with each attention module.

ResNet-50 at 352 x 352, batch 1: 7,744 tokens at the finest level. Every network is measured in a process of its own,
one after another; finished rows are kept in OUTPUT/steps.json and skipped by the next call. The full network's table is
written to docs/results as well.

    python benchmarks/camouflage_steps.py --output camouflage-steps-output
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invattn._files import atomic_write, write_json
from invattn.experiments.camouflage.config import CamouflageConfig
from invattn.experiments.camouflage.network import CamouflageNetwork
from invattn.experiments.camouflage.training import PeakMemory
from invattn.experiments.kit.sources import source_hash

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

LARGEST_MEMORY = 10 * 2**30
STEPS = 6
"""Steps of each network: the first one warms up, the least time of the others counts."""

LARGEST_SHARE = {("concatenation", "certified"): 0.15, ("embedded_gaussian", "certified"): 0.30}
"""What attention may take of a step, at most, at 352 x 352."""

Row = dict[str, Any]


def variants() -> list[tuple[str, str]]:
    """Return (attention, recipe) of the 13 networks."""
    return list(CamouflageConfig(output=Path()).variants())


def measure(attention: str, recipe: str, *, side: int, backbone: str, steps: int) -> Row:
    """Return time of a step, of its attention, and peak memory.

    Args:
        attention: Kind.
        recipe: Form.
        side: Of the image in pixels.
        backbone: Name.
        steps: How many, at least 1; of several the first is left out.
    """
    config = CamouflageConfig(output=Path(), image_size=side, backbone=backbone, backbone_weights="none")
    torch.manual_seed(0)
    network = config.network_config(attention, recipe).build()
    optimizer = torch.optim.Adam(network.parameters(), lr=2.5e-5)
    images, masks = torch.rand(1, 3, side, side), (torch.rand(1, 1, side, side) > 0.5).float()
    peak, seconds, cpu, alone = PeakMemory(on_gpu=False), [], [], []
    loss = torch.zeros(())
    for _ in range(steps):
        started, started_cpu = time.monotonic(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(network(images), masks)
        loss.backward()
        optimizer.step()
        seconds.append(time.monotonic() - started)
        cpu.append(time.process_time() - started_cpu)
        alone.append(attention_cpu_seconds(network, images))
    counted = slice(1, None) if steps > 1 else slice(None)
    return {
        "attention": attention,
        "recipe": recipe,
        "seconds": min(seconds[counted]),
        "cpu_seconds": min(cpu[counted]),
        "attention_cpu_seconds": min(alone[counted]),
        "peak_memory": peak.bytes(),
        "loss": float(loss.detach()),
    }


def attention_cpu_seconds(network: CamouflageNetwork, images: Tensor) -> float:
    """Return the CPU time of the four attention modules, forwards and backwards, on what they see of the images."""
    with torch.no_grad():
        inputs = network.attention_inputs(images)
    inputs = [x.requires_grad_() for x in inputs]
    signals = [torch.randn_like(x) for x in inputs]
    started = time.process_time()
    for block, x, signal in zip(network.blocks(), inputs, signals, strict=bool(network.blocks())):
        block(x).backward(signal)
    return time.process_time() - started


def measure_all(output: Path, options: argparse.Namespace) -> list[Row]:
    """Measure every network that is not in ``steps.json`` yet, each in its own process."""
    path = output / "steps.json"
    settings = {name: getattr(options, name) for name in ("side", "backbone", "steps", "threads")}
    settings |= {"code": source_hash("invattn.experiments.camouflage.training"), "torch": torch.__version__}
    kept = json.loads(path.read_text()) if path.exists() else {}
    rows = kept["rows"] if kept.get("settings") == settings else []
    for attention, recipe in variants():
        if any((row["attention"], row["recipe"]) == (attention, recipe) for row in rows):
            continue
        command = [sys.executable, __file__, "--one", attention, recipe, "--side", str(options.side)]
        command += ["--backbone", options.backbone, "--steps", str(options.steps), "--threads", str(options.threads)]
        environment = os.environ | {"OMP_WAIT_POLICY": "passive"}  # a waiting thread sleeps: CPU time is work
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": settings, "rows": rows})
        print(
            f"{attention} {recipe}: {rows[-1]['seconds']:.2f} s, {rows[-1]['peak_memory'] / 2**30:.2f} GiB", flush=True
        )
    return rows


def share(row: Row) -> float:
    """Return the attention's part of a step, in CPU time: other work on the machine changes that least."""
    return float(row["attention_cpu_seconds"]) / float(row["cpu_seconds"])


def markdown(rows: list[Row], *, side: int, threads: int) -> str:
    """Return the table as Markdown."""
    base, wall = (
        next((float(row[clock]) for row in rows if row["attention"] == "none"), float("nan"))
        for clock in ("cpu_seconds", "seconds")
    )
    lines = [
        "# A training step with each attention module",
        "",
        "Written by `python benchmarks/camouflage_steps.py`. What it shows: [README](README.md).",
        "",
        f"ResNet-50 network at {side} x {side}, batch 1, {threads} threads, float32; least of several "
        "steps. Attention: forwards and backwards through the four modules alone, CPU time, and its share of the "
        "step's; more than Base: CPU time of the whole step beside that without attention; of the step: what of its "
        "time by the clock is beyond that without attention. Memory: largest resident set of the process.",
        "",
        "| attention | recipe | step, s | of the step | CPU, s | attention, CPU s | share | more than Base | GiB |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        numbers = [f"{row['seconds']:.2f}", f"{1 - wall / row['seconds']:.1%}"]
        numbers += [f"{row[name]:.2f}" for name in ("cpu_seconds", "attention_cpu_seconds")]
        numbers += [f"{share(row):.1%}", f"{row['cpu_seconds'] / base - 1:+.1%}", f"{row['peak_memory'] / 2**30:.2f}"]
        lines.append(f"| {' | '.join((row['attention'], row['recipe'], *numbers))} |")
    return "\n".join(lines) + "\n"


def complaints(rows: list[Row]) -> list[str]:
    """Return which networks take more than they may, in words."""
    found = [
        f"{row['attention']} {row['recipe']} needs more than {LARGEST_MEMORY / 2**30:.0f} GiB"
        for row in rows
        if row["peak_memory"] > LARGEST_MEMORY
    ]
    for row in rows:
        most = LARGEST_SHARE.get((row["attention"], row["recipe"]), 1.0)
        if share(row) > most:
            found.append(
                f"attention takes {share(row):.0%} of a step of {row['attention']} {row['recipe']}, not {most:.0%}"
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("camouflage-steps-output"))
    parser.add_argument("--one", nargs=2, metavar=("KIND", "RECIPE"), default=None)
    parser.add_argument("--side", type=int, default=352)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one is not None:
        print(json.dumps(measure(*options.one, side=options.side, backbone=options.backbone, steps=options.steps)))
        return 0
    rows = measure_all(options.output, options)
    text = markdown(rows, side=options.side, threads=options.threads)
    (options.output / "steps.md").write_text(text)
    print(text)
    if (options.side, options.backbone) == (352, "resnet50"):
        write_json(RESULTS / "camouflage_steps.json", json.loads((options.output / "steps.json").read_text()))
        atomic_write(RESULTS / "camouflage_steps.md", text.encode())
    found = complaints(rows) if (options.side, options.backbone) == (352, "resnet50") else []
    for complaint in found:
        print(complaint, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
