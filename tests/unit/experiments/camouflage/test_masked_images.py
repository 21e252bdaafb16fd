"""Folders of images and masks: pairs by stem, and one line for everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invattn._errors import DataError
from invattn.experiments.camouflage.pairs import MaskFolder, count_note, read_grey, read_mask


def write(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (12, 8), value: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size, 0)
    image.paste(value, (2, 2, 6, 6))
    image.convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stem in ("b", "a"):
        write(tmp_path / "Imgs" / f"{stem}.jpg")
        write(tmp_path / "GT" / f"{stem}.png", mode="L", value=255)
    return tmp_path


def message(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        MaskFolder(folder, name="set")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_pairs_are_sorted_by_stem_with_their_masks(folder: Path) -> None:
    found = MaskFolder(folder, name="set")
    assert [found.stem(number) for number in range(len(found))] == ["a", "b"]
    image, mask = found.pair(0)
    assert image.shape == (3, 8, 12)
    assert image.dtype == mask.dtype == torch.uint8
    assert mask.shape == (8, 12)
    assert int((mask > 128).sum()) == 16
    assert len(MaskFolder(folder, name="set", limit=1)) == 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_images_become_colour(folder: Path, mode: str) -> None:
    write(folder / "Imgs" / "a.jpg", mode=mode)
    image, _ = MaskFolder(folder, name="set").pair(0)
    assert image.shape == (3, 8, 12)
    # Grey levels 0 and 200 survive within what JPEG loses.
    assert int(image[:, 4, 4].float().sub(200).abs().max()) < 25


def test_a_mask_with_three_channels_is_read_as_grey(folder: Path) -> None:
    grey = MaskFolder(folder, name="set").pair(0)[1]
    write(folder / "GT" / "a.png", mode="RGB", value=255)
    assert torch.equal(MaskFolder(folder, name="set").pair(0)[1], grey)


def test_grey_of_colour_is_the_luma(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).save(tmp_path / "c.png")
    assert read_grey(tmp_path / "c.png").tolist() == [[round(255 * w) for w in (0.299, 0.587, 0.114)]]


def test_masks_of_labels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", mode="L", value=1)
    with pytest.raises(DataError, match=r"m\.png holds the values 0 and 1"):
        read_mask(path)
    assert int(read_mask(write(tmp_path / "e.png", mode="L", value=0)).max()) == 0


def test_a_missing_partner_is_named(folder: Path) -> None:
    (folder / "GT" / "b.png").unlink()
    assert "has no mask for 1 image (b)" in message(folder)
    write(folder / "GT" / "b.png", mode="L")
    for stem in "vwxyz":
        write(folder / "GT" / f"{stem}.png", mode="L")
    assert "has no image for 5 masks (v, w, x and 2 more)" in message(folder)


def test_two_files_with_one_stem_are_named(folder: Path) -> None:
    write(folder / "Imgs" / "a.png")
    text = message(folder)
    assert "two files with the stem 'a'" in text
    assert "a.jpg and a.png" in text


def test_a_mask_of_another_size_is_named(folder: Path) -> None:
    write(folder / "GT" / "b.png", mode="L", size=(12, 9))
    text = message(folder)
    assert "b.png is 9x12 pixels" in text
    assert "b.jpg is 8x12" in text


def test_a_corrupt_image_is_named(folder: Path) -> None:
    path = folder / "Imgs" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"a\.jpg cannot be decoded") as caught:
        MaskFolder(folder, name="set").pair(0)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"no image")
    assert "a.jpg is not an image that can be read" in message(folder)


def test_folders_must_be_there(tmp_path: Path) -> None:
    assert "has no folder Imgs" in message(tmp_path)
    write(tmp_path / "Imgs" / "a.jpg")
    assert "has no folder GT" in message(tmp_path)


def test_the_fingerprint_changes_with_any_file(folder: Path) -> None:
    before = MaskFolder(folder, name="set").fingerprint()
    assert MaskFolder(folder, name="other").fingerprint() == before
    write(folder / "GT" / "b.png", mode="L", value=254)
    assert MaskFolder(folder, name="set").fingerprint() != before


def test_another_count_than_the_published_one_is_a_note() -> None:
    assert count_note("CAMO", 250, published=250) is None
    assert count_note("CAMO", 3, published=250) == "CAMO has 3 images, the published figures are of 250"


def test_the_real_pairs_can_be_read(real_data: Path) -> None:
    folder = real_data / "cod" / "TestDataset" / "CAMO"
    if not folder.is_dir():
        pytest.skip("the data folder holds no cod")
    found = MaskFolder(folder, name="CAMO")
    for number in range(len(found)):
        image, mask = found.pair(number)
        assert image.shape[1:] == mask.shape
        assert 0.01 < float((mask > 128).float().mean()) < 0.5
