"""Files of two folders that belong together by their stem, the name without its ending."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from invattn._errors import DataError
from invattn.data.folder import list_images

_NAMED = 3


class Match(NamedTuple):
    """Two files with one stem.

    Attributes:
        stem: Their common name.
        first: The file of the first folder.
        second: The file of the second folder.
    """

    stem: str
    first: Path
    second: Path


def match_stems(first: Path, second: Path, *, what: tuple[str, str]) -> list[Match]:
    """Pair every image file of a folder with the one of another folder that has its stem, sorted by stem.

    Args:
        first: A folder of image files.
        second: Another one.
        what: What the files of each are, for messages, such as ``("image", "mask")``.

    Raises:
        DataError: If a folder cannot be read, two of its files have one stem, or a file has no partner.
    """
    one, other = _by_stem(first), _by_stem(second)
    for have, want, folder, names in ((one, other, second, what), (other, one, first, what[::-1])):
        alone = sorted(have.keys() - want.keys())
        if alone:
            raise DataError(
                f"{folder} has no {names[1]} for {_count(len(alone), names[0])} ({_some(alone)}): files belong "
                "together by their name without the ending; add the missing ones, or move the others out."
            )
    return [Match(stem, one[stem], other[stem]) for stem in sorted(one)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise DataError(
                f"{folder} holds two files with the stem {path.stem!r} ({found[path.stem].name} and {path.name}): "
                "remove one of them."
            )
        found[path.stem] = path
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more
