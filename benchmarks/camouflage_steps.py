"""Time and memory of one training step of the full camouflage network with each attention module.

ResNet-50 at 352 x 352, batch 1: 7,744 tokens at the finest level. Every network is measured in a process of its own,
one after another; finished rows are kept in OUTPUT/steps.json and skipped by the next call.

    python benchmarks/camouflage_steps.py --output camouflage-steps-output
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from invattn.experiments.camouflage_config import CamouflageConfig
from invattn.experiments.source_hash import source_hash
from invattn.records import write_json
from invattn.training.peak_memory import PeakMemory

LARGEST_MEMORY = 10 * 2**30
STEPS = 3
"""Steps of each network: the first one warms up, the least time of the others counts."""


def variants() -> list[tuple[str, str]]:
    """Return (attention, recipe) of the 13 networks."""
    return list(CamouflageConfig(output=Path()).variants())


def measure(attention: str, recipe: str, *, side: int, backbone: str, steps: int) -> dict[str, object]:
    """Return time of a step, the attention's part of its forward pass, and peak memory.

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
    peak, seconds, cpu = PeakMemory(on_gpu=False), [], []
    loss = torch.zeros(())
    for _ in range(steps):
        started, started_cpu = time.monotonic(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(network(images), masks)
        loss.backward()
        optimizer.step()
        seconds.append(time.monotonic() - started)
        cpu.append(time.process_time() - started_cpu)
    counted = slice(1, None) if steps > 1 else slice(None)
    return {
        "attention": attention,
        "recipe": recipe,
        "seconds": min(seconds[counted]),
        "cpu_seconds": min(cpu[counted]),
        "peak_memory": peak.bytes(),
        "loss": float(loss.detach()),
    }


def measure_all(output: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """Measure every network that is not in ``steps.json`` yet, each in its own process."""
    path = output / "steps.json"
    settings = {name: getattr(options, name) for name in ("side", "backbone", "steps", "threads")}
    settings |= {"code": source_hash(), "torch": torch.__version__}
    kept = json.loads(path.read_text()) if path.exists() else {}
    rows = kept["rows"] if kept.get("settings") == settings else []
    for attention, recipe in variants():
        if any((row["attention"], row["recipe"]) == (attention, recipe) for row in rows):
            continue
        command = [sys.executable, __file__, "--one", attention, recipe, "--side", str(options.side)]
        command += ["--backbone", options.backbone, "--steps", str(options.steps), "--threads", str(options.threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": settings, "rows": rows})
        print(
            f"{attention} {recipe}: {rows[-1]['seconds']:.2f} s, {rows[-1]['peak_memory'] / 2**30:.2f} GiB", flush=True
        )
    return rows


def markdown(rows: list[dict[str, object]], *, side: int, threads: int) -> str:
    """Return the table as Markdown."""
    base = next((float(str(row["cpu_seconds"])) for row in rows if row["attention"] == "none"), float("nan"))
    lines = [
        f"One training step at {side} x {side}, batch 1, {threads} threads; CPU time beside that without attention.",
        "",
        "| attention | recipe | step, s | CPU, s | more than Base | peak memory, GiB |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        cpu, memory = float(str(row["cpu_seconds"])), int(str(row["peak_memory"]))
        seconds = float(str(row["seconds"]))
        cells = (row["attention"], row["recipe"], f"{seconds:.2f}", f"{cpu:.2f}", f"{cpu / base - 1:+.0%}")
        lines.append(f"| {' | '.join(map(str, cells))} | {memory / 2**30:.2f} |")
    return "\n".join(lines) + "\n"


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
    (options.output / "steps.md").write_text(markdown(rows, side=options.side, threads=options.threads))
    too_much = [row for row in rows if int(str(row["peak_memory"])) > LARGEST_MEMORY]
    for row in too_much:
        print(f"{row['attention']} {row['recipe']} needs more than 10 GiB", file=sys.stderr)
    return 1 if too_much else 0


if __name__ == "__main__":
    sys.exit(main())
