"""Run the tests for GPUs, benchmarks and one training step on a GPU, and write benchmarks/results/<gpu>.json.

    python benchmarks/gpu.py [--minutes 9] [--skip-tests]

Under ten minutes: rows that do not fit into the time are left out, and the file says so. Milliseconds are by the clock
on the wall with the device synchronised; memory is what torch's allocator had given out at the most. TF32 is off.
Exit status 1 if a test failed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from backend_thresholds import CHOSEN, FORMULA, OPERATIONS, Case
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from invattn._files import write_json
from invattn.experiments.kit.training.fit import without_tf32
from invattn.flows import MultiscaleIResNet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "speed"))
from results_file import default_path, machine, rounded, versions  # noqa: E402

FORMS = ("exp-row", "exp-column", "elu+1-row", "elu+1-row-sum")
SIZES = ((256, 64), (9701, 1))
ROUNDS = 5


def sdpa(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return row softmax attention by torch's kernel."""
    query, key, value = (x @ weight for weight in weights)
    return scaled_dot_product_attention(query, key, value, scale=1.0)


def measure(variants: dict[str, Callable[[], object]], *, device: str) -> dict[str, Any]:
    """Return milliseconds of every round and bytes at the peak of each variant, taken in turn."""
    found: dict[str, Any] = {name: {"milliseconds": [], "peak_bytes": None} for name in variants}
    for number in range(ROUNDS + 1):
        for name, run in variants.items():
            _synchronise(device, reset=True)
            start = time.perf_counter()
            run()
            _synchronise(device)
            if number:  # the first round is not counted
                found[name]["milliseconds"].append(1000 * (time.perf_counter() - start))
            if device == "cuda":
                found[name]["peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def attention(form: str, operation: str, tokens: int, batch: int, *, device: str) -> dict[str, Any]:
    """Return a row on attention: what the table chooses, the formula, the fused back end and torch's kernel."""
    case, run = Case(form, tokens, batch), OPERATIONS[operation]
    x, weights, along = case.draw()
    placed = (x.to(device), [weight.to(device) for weight in weights], along.to(device))
    functions = {name: case.function(name) for name in (CHOSEN, FORMULA)}
    if "fused" in case.backends(device):
        functions["fused"] = case.function("fused")
    if form == "exp-row" and operation in ("value", "gradient"):
        functions["sdpa"] = sdpa
    return measure({name: lambda apply=apply: run(apply, *placed) for name, apply in functions.items()}, device=device)


def training_step(*, device: str, blocks: int, batch: int) -> dict[str, Any]:
    """Return a row on one step of maximum likelihood of a flow over 3 x 32 x 32 images with attention."""
    torch.manual_seed(0)
    flow = MultiscaleIResNet((3, 32, 32), blocks=(blocks, blocks), hidden_channels=64, attention="gaussian").to(device)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4)
    x = torch.rand(batch, 3, 32, 32, device=device) - 0.5

    def step() -> None:
        loss = -flow.log_prob(x).mean() / x[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)

    return measure({"invattn": step}, device=device)


def run_tests() -> int:
    """Run the tests that are marked gpu; return the status of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _synchronise(device: str, *, reset: bool = False) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
        if reset:
            torch.cuda.reset_peak_memory_stats()


def rows_of(options: argparse.Namespace, deadline: float) -> tuple[dict[str, Any], list[str]]:
    """Return the rows measured before the deadline, and the names of those left out."""
    device = options.device
    sizes = [(tokens, batch) for tokens, batch in SIZES if tokens <= options.tokens]
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "training_step": lambda: training_step(device=device, blocks=options.blocks, batch=options.batch)
    }
    for tokens, batch in sizes:
        for form in FORMS:
            for operation in OPERATIONS:
                work[f"{form}-{operation}-{tokens}x{batch}"] = lambda args=(form, operation, tokens, batch): attention(
                    *args, device=device
                )
    rows: dict[str, Any] = {}
    for name, make in work.items():
        if time.monotonic() > deadline:
            break
        rows[name] = make()
        times = {variant: statistics.median(row["milliseconds"]) for variant, row in rows[name].items()}
        print(name, ", ".join(f"{variant} {value:.3g} ms" for variant, value in times.items()), flush=True)
    return rows, [name for name in work if name not in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Test, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: only to try the script")
    parser.add_argument("--tokens", type=int, default=9701, help="largest number of tokens")
    parser.add_argument("--blocks", type=int, default=16, help="of each of the flow's two scales")
    parser.add_argument("--batch", type=int, default=64, help="of the training step")
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--results", type=Path, default=None, help="file to write")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "gpu.py: torch finds no CUDA device. Install a build of torch for CUDA, or run make bench.", file=sys.stderr
        )
        return 1
    deadline = time.monotonic() + 60 * options.minutes
    status = 0 if options.skip_tests else run_tests()
    with without_tf32():
        rows, left_out = rows_of(options, deadline)
    path = options.results or default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"schema_version": 1, "command": "python benchmarks/gpu.py", "machine": machine(), "versions": versions()}
    tests = "skipped" if options.skip_tests else ("passed" if status == 0 else "failed")
    write_json(path, content | {"tests": tests, "left_out": left_out, "rows": rounded(rows)})
    print(f"rows: {path}")
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
