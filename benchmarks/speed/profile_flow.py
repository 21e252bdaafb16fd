"""Keep and show where the training step of the flow goes, ours and normflows', by operators.

python benchmarks/speed/profile_flow.py [--blocks 4]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_flow import flow_variants
from results_file import ResultsFile, default_path

SHOWN, STEPS = 6, 3


def shares(step: Callable[[], object]) -> tuple[float, list[tuple[str, float, int]]]:
    """Return the seconds of a step, and (operator, share of them, calls) from the largest share on.

    The profiler knows wall time alone: the fastest of some steps, which others on the machine disturbed least.
    """
    step()
    return min((_profiled(step) for _ in range(STEPS)), key=lambda found: found[0])


def _profiled(step: Callable[[], object]) -> tuple[float, list[tuple[str, float, int]]]:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return total / 1e6, [(event.key, event.self_cpu_time_total / total, event.count) for event in events[:SHOWN]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--results", type=Path, default=None, help="file of rows")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    profiles = {name: shares(step) for name, step in flow_variants(options.blocks).items()}
    results = ResultsFile(options.results or default_path(), command="make bench")
    results.keep("flow_profile", {"blocks": options.blocks, "load": os.getloadavg()[0], "profile": profiles})
    for name, (seconds, operators) in profiles.items():
        print(f"{name}, {options.blocks} blocks, {seconds:.2f} s under the profiler")
        for operator, share, calls in operators:
            print(f"  {share:6.1%}  {calls:6d}  {operator}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
