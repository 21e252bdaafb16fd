"""Which libraries made a number."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

import invattn


def library_versions() -> dict[str, str]:
    """Return library name -> version, with Python's."""
    libraries = ("lightning", "numpy", "safetensors", "torchmetrics")
    own = {"invattn": invattn.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return own | {name: version(name) for name in libraries}
