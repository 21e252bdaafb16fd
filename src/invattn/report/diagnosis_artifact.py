"""The pictures that a diagnosis stored, and sheets of them as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from invattn.report.artifacts import DAMAGE, Array, MissingPartError

_GAP = 4
_ENLARGE_BELOW = 128


class DiagnosisArtifact:
    """The arrays of ``artifacts/diagnosis.npz``.

    Args:
        path: The file; one that is missing counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, *names: str) -> list[Array]:
        """Return the named arrays, pictures uint8 with shape (n, H, W, 3).

        Raises:
            MissingPartError: If one is absent or unreadable, or they do not fit together.
        """
        try:
            with self._path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                found = [stored[name] for name in names if name in stored.files]
        except FileNotFoundError:
            raise MissingPartError("the run stored no pictures") from None
        except DAMAGE:
            raise MissingPartError(f"the stored file {self._path.name} is damaged") from None
        if len(found) < len(names):
            raise MissingPartError("there are none")
        if len({len(array) for array in found}) != 1:
            raise MissingPartError("the stored arrays do not fit together")
        return found

    def flagged_sheet(self) -> bytes | None:
        """Return a PNG file with one flagged image a row, beside what the inverse returned; None without any."""
        try:
            first, second = self.take("failing_image", "failing_returned")
        except MissingPartError:
            return None
        return _sheet([first, second])

    def pair_sheet(self) -> bytes | None:
        """Return a PNG file with one pair a row: both inputs and their difference, grey; None without any."""
        try:
            first, second, difference = self.take("pair_first", "pair_second", "pair_difference")
        except MissingPartError:
            return None
        grey = np.clip(difference, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
        return _sheet([first, second, grey])


def _sheet(columns: list[Array]) -> bytes:
    """Set pictures into rows and columns on white, small ones enlarged pixel by pixel."""
    rows, height, width = columns[0].shape[:3]
    sheet = np.full((rows * (height + _GAP) - _GAP, len(columns) * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for place, pictures in enumerate(columns):
        for row, picture in enumerate(pictures):
            top, left = row * (height + _GAP), place * (width + _GAP)
            sheet[top : top + height, left : left + width] = picture
    image = Image.fromarray(sheet)
    if max(height, width) < _ENLARGE_BELOW:
        image = image.resize((image.width * 3, image.height * 3), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
