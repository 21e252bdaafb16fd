"""A picture of predicted maps beside their masks, and the images where they are given."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from invattn.data.masks import read_grey, read_mask
from invattn.data.pixels import read_picture
from invattn.data.stems import Match

SHOWN = 8
"""Pairs of a set that are shown, the first ones."""

HEIGHT, GAP = 128, 4  # pixels


def map_sheet(pairs: Sequence[Match], pictures: Mapping[str, Path] | None) -> bytes:
    """Return a PNG with a column for each of the first pairs: image, if there is one, mask, map.

    Args:
        pairs: Stem, map and mask.
        pictures: Stem -> image, or None.

    Raises:
        DataError: If a file cannot be read.
    """
    columns = [_column(stem, prediction, mask, pictures) for stem, prediction, mask in pairs[:SHOWN]]
    width = sum(column[0].width + GAP for column in columns) - GAP
    sheet = Image.new("RGB", (width, len(columns[0]) * (HEIGHT + GAP) - GAP), "white")
    left = 0
    for column in columns:
        for row, part in enumerate(column):
            sheet.paste(part, (left, row * (HEIGHT + GAP)))
        left += column[0].width + GAP
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _column(stem: str, prediction: Path, mask: Path, pictures: Mapping[str, Path] | None) -> list[Image.Image]:
    truth = Image.fromarray(read_mask(mask).numpy())
    size = (max(1, round(HEIGHT * truth.width / truth.height)), HEIGHT)
    parts = [truth, Image.fromarray(read_grey(prediction).numpy())]
    if pictures is not None:
        parts.insert(0, Image.fromarray(read_picture(pictures[stem]).pixels.permute(1, 2, 0).contiguous().numpy()))
    return [part.resize(size, Image.Resampling.BILINEAR).convert("RGB") for part in parts]
