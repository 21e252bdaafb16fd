"""Which version of the code made a number."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import invattn

NO_INFLUENCE = (
    "__main__",
    "_version",
    "adapters",
    "cli",
    "demo",
    "diagnosis",
    "hub",
    "published",
    "records",
    "report",
    "testing",
)
"""Parts of the package on which no measured number depends; everything else counts, new parts too."""


@cache
def source_hash() -> str:
    """Return the SHA-256 over the Python files of the installed package that measured numbers depend on."""
    return hash_sources(Path(invattn.__file__).parent)


def hash_sources(root: Path) -> str:
    """Return the SHA-256 over names and contents of the Python files below a folder, but for ``NO_INFLUENCE``."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.with_suffix("").parts[0] in NO_INFLUENCE:
            continue
        content = path.read_bytes()
        digest.update(f"{relative.as_posix()} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()
