"""How much memory a part of the work takes at most."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Largest memory since its making, in bytes.

    On a GPU, what torch had allocated there; else the resident set of the process, in which Python and its libraries
    (some hundred megabytes) count. Where the system cannot forget an earlier maximum, that one counts too.

    Args:
        on_gpu: Whether the work runs on a GPU.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # Linux: forget the largest resident set so far

    def bytes(self) -> int:
        """Return the largest memory up to now."""
        if self._on_gpu:
            return torch.cuda.max_memory_allocated()
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        except OSError:
            found = None
        if found:
            return 1024 * int(found[1])
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
