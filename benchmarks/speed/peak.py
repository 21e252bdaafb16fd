"""Print the memory that one operation adds to a process at its peak, in bytes.

    python peak.py FORM OPERATION TOKENS VARIANT

Run in a fresh process for every figure. The operation runs once before at 64 tokens, so that what torch loads at its
first use is not counted. On Linux the peak is the resident set's high-water mark, reset just before.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
from backend_thresholds import Case
from forms import run_of

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(field: str) -> int:
    """Return VmRSS or VmHWM in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{STATUS} has no {field}.")


def highest() -> int:
    """Return the largest resident set so far in bytes."""
    if STATUS.exists():
        return resident("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(form: str, operation: str, tokens: str, variant: str) -> None:
    torch.set_num_threads(1)
    run_of(Case(form, 64, 1), operation, variant)()
    run = run_of(Case(form, int(tokens), 1), operation, variant)
    if STATUS.exists():
        CLEAR.write_text("5")
        before = resident("VmRSS")
    else:
        before = highest()
    run()
    print(highest() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
