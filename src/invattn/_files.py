"""Files that are never half-written, and JSON that holds only what it can hold exactly."""

from __future__ import annotations

import contextlib
import json
import math
import numbers
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invattn._errors import DataError


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the whole old file or the whole new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and then take the place of ``path``.
    If any step fails, or is interrupted, the temporary file is removed and the old file is untouched. A symbolic link
    is followed.

    Args:
        path: The file to write; its folder must exist.
        data: The complete new content.

    Raises:
        OSError: If the file cannot be written: no space, no permission, a size limit, no folder; it names ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        _write_new(temporary, data)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = os.fspath(path), None
        raise
    _sync_folder(target.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed ``atomic_write`` left in a folder; no other file is touched."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\.[0-9a-f]{16}\.tmp", path.name):
            path.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet and wait until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entry of a renamed file where the system allows it; the file itself is already in place."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` as indented JSON, atomically; numbers that are not finite become null.

    Args:
        path: The file to write.
        obj: Mappings with string keys, lists, tuples, numbers (numpy's too), strings, paths, booleans, None; nested.

    Raises:
        TypeError: If ``obj`` holds anything else; nothing is written then.
        OSError: As ``atomic_write``.
    """
    text = json.dumps(plain_values(obj), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, (text + "\n").encode("utf-8"))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        DataError: If the file is missing, unreadable or not JSON; one line that names it.
    """
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Give the folder that a finished run wrote.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not valid JSON ({reason}). Run the experiment again to rewrite it.") from None


def plain_values(value: Any) -> Any:
    """Reduce a value to what JSON can hold exactly: floats that are not finite become None."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {_key(name): plain_values(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a record cannot hold a {type(value).__name__}; give numbers, strings, lists and dicts.")


def _key(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the keys of a record must be strings; got {name!r}.")
    return name
