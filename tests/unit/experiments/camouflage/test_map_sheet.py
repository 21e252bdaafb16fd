"""The picture of maps beside their masks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from invattn.experiments.camouflage.evaluation import HEIGHT, SHOWN, map_sheet
from invattn.experiments.camouflage.pairs import match_stems

GAP = 4
"""Pixels between pictures: that of every sheet."""


def written(path: Path, level: int, size: tuple[int, int], mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level, 0, 0) if mode == "RGB" else level).save(path)
    return path


def test_rows_are_image_mask_and_map_and_columns_have_the_proportions_of_the_masks(tmp_path: Path) -> None:
    for number, size in enumerate([(20, 10), (10, 20)]):
        written(tmp_path / "maps" / f"{number}.png", 100 + number, (7, 5))
        written(tmp_path / "masks" / f"{number}.png", 255, size)
    pictures = {str(number): written(tmp_path / "Imgs" / f"{number}.png", 50, (20, 10), "RGB") for number in range(2)}
    pairs = match_stems(tmp_path / "maps", tmp_path / "masks", what=("map", "mask"))
    sheet = np.asarray(Image.open(io.BytesIO(map_sheet(pairs, pictures))))
    assert sheet.shape == (3 * HEIGHT + 2 * GAP, 2 * HEIGHT + HEIGHT // 2 + GAP, 3)
    first, second = HEIGHT, 2 * HEIGHT + GAP + HEIGHT // 4
    rows = [HEIGHT // 2 + row * (HEIGHT + GAP) for row in range(3)]
    assert [sheet[row, first].tolist() for row in rows] == [[50, 0, 0], [255] * 3, [100] * 3]
    assert [sheet[row, second].tolist() for row in rows] == [[50, 0, 0], [255] * 3, [101] * 3]
    without = np.asarray(Image.open(io.BytesIO(map_sheet(pairs, None))))
    assert without.shape[0] == 2 * HEIGHT + GAP


def test_only_the_first_ones_are_shown(tmp_path: Path) -> None:
    for number in range(SHOWN + 2):
        for part in ("maps", "masks"):
            written(tmp_path / part / f"{number:02}.png", 255, (8, 8))
    pairs = match_stems(tmp_path / "maps", tmp_path / "masks", what=("map", "mask"))
    sheet = Image.open(io.BytesIO(map_sheet(pairs, None)))
    assert sheet.width == SHOWN * (HEIGHT + GAP) - GAP
