"""Which code a number depends on: the modules that its computation imports, and one hash over all of them."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

import invattn

_IMPORT = re.compile(r"(?m)^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|.*)|import[ \t]+([\w.]+))")
"""An import statement wherever it stands, as the formatter writes it; ten times as fast as parsing whole files."""


@cache
def source_hash(module: str) -> str:
    """Return the SHA-256 over a module of the installed package and all that it imports; of each process, once.

    Args:
        module: Its full name, such as ``invattn.experiments.density.run``.
    """
    return hash_sources(imported_files(Path(invattn.__file__).parent, module))


def hash_sources(files: dict[str, bytes]) -> str:
    """Return the SHA-256 over names and contents of files."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def imported_files(root: Path, module: str) -> dict[str, bytes]:
    """Return the files of a package that a module needs: its own, and those of all modules that these import.

    Imports inside functions count. A module needs the packages that it lies in.

    Args:
        root: Folder of the package; its name is that of the package.
        module: Full name of the module.

    Returns:
        Path below the root -> content.
    """
    files: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(root, name)
        key = "" if path is None else path.relative_to(root).as_posix()
        if path is None or key in files:
            continue
        files[key] = path.read_bytes()
        waiting += _packages(name)
        waiting += _imported_names(files[key].decode("utf-8"))
    return files


def _file(root: Path, module: str) -> Path | None:
    """Return the file of a module, or None if the package has none of this name."""
    package, *parts = module.split(".")
    path = root.joinpath(*parts)
    found = [file for file in (path / "__init__.py", root.joinpath(*parts[:-1], f"{path.name}.py")) if file.is_file()]
    return found[0] if package == root.name and found else None


def _packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _imported_names(source: str) -> list[str]:
    """Return every name after ``import`` and ``from`` that may be a module; a name may also be one of its functions."""
    found = []
    for origin, names, module in _IMPORT.findall(source):
        found.append(origin or module)
        found += [f"{origin}.{name}" for name in re.findall(r"\w+", re.sub(r"#.*| as \w+", "", names))]
    return found
