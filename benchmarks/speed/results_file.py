"""The file of measured rows: kept after every row, so that a long table grows over several calls."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import invattn
from invattn._files import read_json, write_json

FOLDER = Path(__file__).resolve().parent.parent / "results"
SCHEMA = 1
LIBRARIES = ("normflows", "FrEIA", "pytest-benchmark", "numpy")


class ResultsFile:
    """Rows by name, on disk.

    Args:
        path: The JSON file; made with the first row.
        command: What is written down as the command that measured.
    """

    def __init__(self, path: Path, *, command: str) -> None:
        self.path = path
        self.command = command

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows that the file holds now."""
        found: dict[str, dict[str, Any]] = read_json(self.path)["rows"] if self.path.exists() else {}
        return found

    def keep(self, name: str, row: dict[str, Any]) -> None:
        """Add a row, or put it in the place of the one of this name, and write the file."""
        content = {
            "schema_version": SCHEMA,
            "command": self.command,
            "machine": machine(),
            "versions": versions(),
            "rows": self.rows | {name: rounded(row)},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, content)


def rounded(value: Any) -> Any:
    """Return a row with four digits of every number that is no whole one."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def default_path() -> Path:
    """Return benchmarks/results/<machine>.json."""
    words = [*re.findall(r"[a-z0-9]+", processor_name().lower()), str(os.cpu_count()), "cores"]
    if torch.cuda.is_available():
        words = re.findall(r"[a-z0-9]+", torch.cuda.get_device_name().lower())
    return FOLDER / f"{'-'.join(words)}.json"


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine; no names of hosts."""
    found: dict[str, Any] = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor_name() -> str:
    """Return the model that the system states, or the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return library -> version, of those that are installed."""
    found = {"invattn": invattn.__version__, "python": platform.python_version(), "torch": torch.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
