"""Count the Python calls of one inverse: how far the code walks for one `block.solve(z)` and one `block.inverse(z)`.

    python benchmarks/calls.py

Prints, for a certified block of images of 12 x 16 x 16 in float32 and two samples, the calls of the library's own
functions, all calls of Python functions (torch's included), changes from one file of the library to another, and how
often a spectral norm was computed. Counts do not depend on the machine; no figure is a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

import invattn

LIBRARY = str(Path(invattn.__file__).parent)


class Walk:
    """Counts what is called while it is entered.

    Attributes:
        own: Calls of the library's functions.
        every: Calls of Python functions.
        changes: Calls of one of the library's functions from another file of it.
        norms: Evaluations of a spectral norm, each of one matrix or of a stack of them.
    """

    def __init__(self) -> None:
        self.own = self.every = self.changes = self.norms = 0

    def __enter__(self) -> Walk:
        sys.setprofile(self._event)
        return self

    def __exit__(self, *raised: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, value: object) -> None:
        if event == "c_call" and getattr(value, "__name__", "") in ("linalg_matrix_norm", "linalg_svdvals"):
            self.norms += 1
        if event != "call":
            return
        self.every += 1
        file = frame.f_code.co_filename
        self.norms += frame.f_code.co_name == "gram_norm"
        if file.startswith(LIBRARY):
            self.own += 1
            caller = frame.f_back.f_code.co_filename if frame.f_back else file
            self.changes += file != caller and caller.startswith(LIBRARY)


def main() -> None:
    """Print the counts."""
    torch.manual_seed(0)
    block = invattn.invertible_attention(12, kind="embedded_gaussian")
    x = torch.rand(2, 12, 16, 16) - 0.5
    with torch.no_grad():
        z = block(x)
    walks: dict[str, Callable[[], object]] = {
        "block(x)": lambda: block(x),
        "block.solve(z)": lambda: block.solve(z),
        "block.inverse(z)": lambda: block.inverse(z),
        "block.forward_and_log_det(x)": lambda: block.forward_and_log_det(x),
    }
    print(f"{'':30} {'own calls':>10} {'all calls':>10} {'changes of file':>16} {'spectral norms':>15}")
    for name, call in walks.items():
        call()  # what happens once in a process does not count
        with Walk() as walk:
            call()
        print(f"{name:30} {walk.own:10} {walk.every:10} {walk.changes:16} {walk.norms:15}")


if __name__ == "__main__":
    main()
