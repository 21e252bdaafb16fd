"""Measure what constant-memory training saves and what it costs, against ordinary training of the same chain.

    python benchmarks/constant_memory.py [--blocks 8 16] [--repeats 3]

One step: forward with log-determinant, negative log-likelihood under a normal base, backward. Memory is counted in
bytes of tensors alive at one time (invattn.testing.PeakMemory) and repeats exactly. Times of the modes are taken in
turn, in seconds of the processor, and given as ratios. Some four minutes on one core. Writes
docs/results/constant_memory.md and constant_memory.json (numbers only).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import invattn
from invattn._files import atomic_write, write_json
from invattn.bijections import Bijection, Composed, ConstantMemory, Drift
from invattn.logdet import PowerSeries
from invattn.testing import PeakMemory

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
KINDS = ("embedded_gaussian", "concatenation", "dot_product", "gaussian")


@dataclass(frozen=True)
class Setting:
    """What a chain is fed, tokens (B, N, C) or images (B, C, H, W), and how many blocks it has."""

    name: str
    shape: tuple[int, ...]
    blocks: tuple[int, ...] = (32,)

    @property
    def layout(self) -> str:
        return "tokens" if len(self.shape) == 3 else "image"

    @property
    def channels(self) -> int:
        return self.shape[2] if len(self.shape) == 3 else self.shape[1]

    @property
    def words(self) -> str:
        return f"{self.layout} {' x '.join(str(side) for side in self.shape)}"


SETTINGS = (
    Setting("tokens", (16, 64, 12), blocks=(8, 16, 32, 64)),
    Setting("image", (16, 12, 16, 16)),
    Setting("wide", (16, 64, 64)),
)


@dataclass(frozen=True)
class Mode:
    """One way to train; keep_every 0 is the ordinary one."""

    name: str
    keep_every: int | None

    def wrap(self, chain: Composed, reports: list[Drift]) -> Bijection:
        """Return the module that is trained."""
        if self.keep_every == 0:
            return chain
        return ConstantMemory(chain, keep_every=self.keep_every, on_drift=reports.append)


MODES = (
    Mode("ordinary", 0),
    Mode("constant memory", None),
    Mode("keep_every=8", 8),
    Mode("keep_every=1", 1),
)


def build(setting: Setting, blocks: int, *, terms: int, dtype: torch.dtype = torch.float32) -> Composed:
    """Make a chain of certified blocks of the four kinds in turn."""
    torch.manual_seed(0)
    return Composed(
        invattn.invertible_attention(
            setting.channels,
            kind=KINDS[block % len(KINDS)],
            layout=setting.layout,
            log_det_estimator=PowerSeries(terms=terms),
        )
        for block in range(blocks)
    ).to(dtype)


def step(module: Bijection, x: Tensor) -> Tensor:
    """Make one training step without the update; return all gradients in one vector."""
    module.zero_grad()
    torch.manual_seed(1)
    z, log_det = module.forward_and_log_det(x)
    loss = (z.square().flatten(1).sum(dim=1) / 2 - log_det).mean()
    loss.backward()
    return torch.cat([value.grad.flatten() for value in module.parameters() if value.grad is not None])


def measure(setting: Setting, blocks: int, *, terms: int, repeats: int) -> dict[str, Any]:
    """Measure every mode on one chain."""
    generator = torch.Generator().manual_seed(2)
    chain, x = build(setting, blocks, terms=terms), torch.randn(setting.shape, generator=generator)
    reports: dict[str, list[Drift]] = {mode.name: [] for mode in MODES}
    modules = {mode.name: mode.wrap(chain, reports[mode.name]) for mode in MODES}
    peaks, gradients = {}, {}
    for name, module in modules.items():
        module.zero_grad()
        with PeakMemory() as memory:
            kept = step(module, x)
            gradients[name] = kept.clone()
        peaks[name] = memory.peak
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(repeats):
        for name, module in modules.items():
            start = time.process_time()
            step(module, x)
            seconds[name].append(time.process_time() - start)
    wanted = gradients["ordinary"]
    rows = []
    for name in modules:
        ratios = [own / other for own, other in zip(seconds[name], seconds["ordinary"], strict=True)]
        report = reports[name][-1] if reports[name] else None
        rows.append(
            {
                "mode": name,
                "peak_bytes": peaks[name],
                "memory_ratio": peaks[name] / peaks["ordinary"],
                "seconds": seconds[name],
                "time_ratio": statistics.median(ratios),
                "gradient_difference": float((gradients[name] - wanted).norm() / wanted.norm()),
                "drift": None if report is None else report.largest,
                "log_det_drift": None if report is None else report.log_det,
            }
        )
    return {"setting": setting.name, "shape": list(setting.shape), "blocks": blocks, "modes": rows}


def markdown(content: Mapping[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Constant-memory training",
        "",
        f"One training step (forward, log-determinant by a power series of {content['terms']} terms, negative "
        "log-likelihood, backward) of a chain of certified blocks, the four kinds in turn, float32, in "
        "`ConstantMemory` against the chain itself. Memory: bytes of tensors alive at one time, weights and input not "
        "counted, gradients of weights counted. Time: median of the ratio to the ordinary step beside it, in seconds "
        f"of the processor, repeats: {content['repeats']}, one thread. Gradients: |difference| / |ordinary gradient| "
        "over all weights. Drift: the largest entry of |reconstructed - true| where both are known.",
        "",
    ]
    names = {setting.name: setting for setting in SETTINGS}
    for setting in dict.fromkeys(row["setting"] for row in content["rows"]):
        lines += [f"## {names[setting].words}", "", "| blocks | mode | peak | memory | time | gradients | drift |"]
        lines.append("|---|---|---|---|---|---|---|")
        for row in content["rows"]:
            if row["setting"] == setting:
                lines += [_line(row["blocks"], mode) for mode in row["modes"]]
        lines.append("")
    lines += [
        "`keep_every=1` inverts nothing: it is ordinary checkpointing of every block. A block that draws probes holds "
        "about 5 kB more for the state of the random stream, which is not in the count.",
        "",
        f"Command: `{content['command']}`; "
        + ", ".join(f"{name} {version}" for name, version in content["versions"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def _line(blocks: int, mode: Mapping[str, Any]) -> str:
    ordinary = mode["mode"] == "ordinary"
    cells = [
        str(blocks) if ordinary else "",
        mode["mode"],
        f"{mode['peak_bytes'] / 2**20:.1f} MiB",
        "" if ordinary else f"{100 * mode['memory_ratio']:.1f}%",
        "" if ordinary else f"{mode['time_ratio']:.2f}x",
        "" if ordinary else f"{mode['gradient_difference']:.1e}",
        "" if mode["drift"] is None else f"{mode['drift']:.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", help="instead of those of each setting")
    parser.add_argument("--settings", nargs="+", choices=[setting.name for setting in SETTINGS])
    parser.add_argument("--terms", type=int, default=5, help="of the power series")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table goes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the table."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    settings = [setting for setting in SETTINGS if not options.settings or setting.name in options.settings]
    rows = []
    for setting in settings:
        for blocks in options.blocks or setting.blocks:
            rows.append(measure(setting, blocks, terms=options.terms, repeats=options.repeats))
            print(f"{setting.words}, {blocks} blocks: measured", flush=True)
    chosen = "".join(
        f" --{name} {' '.join(map(str, value))}"
        for name, value in (("settings", options.settings), ("blocks", options.blocks))
        if value
    )
    content = {
        "schema_version": 1,
        "command": f"python benchmarks/constant_memory.py{chosen} --terms {options.terms} --repeats {options.repeats}",
        "terms": options.terms,
        "repeats": options.repeats,
        "versions": {"invattn": invattn.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "rows": rows,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_json(options.results / "constant_memory.json", content)
    atomic_write(options.results / "constant_memory.md", markdown(content).encode())
    print(f"table: {options.results / 'constant_memory.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
