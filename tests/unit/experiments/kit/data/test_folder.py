from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from invattn._errors import DataError
from invattn.experiments.kit.data.folder import list_images
from invattn.experiments.kit.data.pixels import read_picture
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data

Writer = Callable[..., Path]


def _load(folder: Path, *, size: int = 2, image_size: object = 32, seed: int = 0) -> ImageData:
    return load_reconstruction_data(
        ImageRequest(
            str(folder),
            data_root=None,
            train_size=size,
            test_size=size,
            image_size=image_size,  # type: ignore[arg-type]
            seed=seed,
        )
    )


def _refused(folder: Path, *, image_size: object = 32) -> str:
    with pytest.raises(DataError) as error:
        _load(folder, image_size=image_size)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_splits_by_seed_and_uses_no_image_twice(write_image: Writer) -> None:
    paths = [write_image(f"{letter}.png", height=32) for letter in "abcdefgh"]
    folder = paths[0].parent
    data = _load(folder, size=4)
    together = torch.cat([data.train, data.test]).flatten(1)
    expected = torch.stack([read_picture(path).pixels for path in paths]).flatten(1)
    assert torch.equal(torch.unique(together, dim=0), torch.unique(expected, dim=0))
    assert torch.equal(_load(folder, size=4).train, data.train)
    assert any(not torch.equal(_load(folder, size=4, seed=seed).train, data.train) for seed in (1, 2, 3))
    assert data.notes == ("there are no train and test folders: 8 images were split at random (seed 0)",)
    assert data.name == str(folder)


def test_train_and_test_folders_are_used_as_they_are(write_image: Writer, tmp_path: Path) -> None:
    train = [write_image(f"{letter}.png", folder="images/train") for letter in "ab"]
    test = [write_image(f"{letter}.png", folder="images/test") for letter in "cd"]
    data = _load(tmp_path / "images", image_size="original")
    assert torch.equal(data.train, torch.stack([read_picture(path).pixels for path in train]))
    assert torch.equal(data.test, torch.stack([read_picture(path).pixels for path in test]))


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "bmp", "webp", "tif", "tiff"])
def test_every_format_is_read(write_image: Writer, suffix: str) -> None:
    folder = write_image(f"a.{suffix}").parent
    write_image(f"b.{suffix}")
    assert _load(folder).train.shape == (1, 3, 32, 32)


def test_hidden_files_are_ignored(write_image: Writer) -> None:
    folder = write_image("a.png").parent
    write_image("b.png")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    assert len(_load(folder).test) == 1


def test_missing_folder_and_misspelt_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "did you mean cifar10?" in _refused(Path("cifar-10"))
    assert "did you mean photos?" in _refused(Path("Photo"))
    assert "nor a folder: check the path" in _refused(tmp_path / "absent")
    with pytest.raises(DataError, match="'' is neither"):
        load_reconstruction_data(ImageRequest("", data_root=None, train_size=1, test_size=1, image_size=32, seed=0))


def test_empty_folder_and_folders_only(tmp_path: Path) -> None:
    assert "holds no images" in _refused(tmp_path)
    (tmp_path / "cats").mkdir()
    assert "only folders (cats): name one of them" in _refused(tmp_path)


def test_folders_beside_images_are_said_not_to_be_read(write_image: Writer) -> None:
    folder = write_image("a.png").parent
    write_image("b.png")
    (folder / "more").mkdir()
    assert "folders inside are not read: more" in _load(folder).notes


def test_a_text_file_among_images(write_image: Writer) -> None:
    folder = write_image("a.png").parent
    write_image("b.png")
    (folder / "notes.txt").write_text("hello")
    message = _refused(folder)
    assert "notes.txt is not an image" in message
    assert "move it out of the folder" in message


def test_a_text_file_called_png(write_image: Writer) -> None:
    folder = write_image("a.png").parent
    (folder / "b.png").write_text("hello")
    assert "b.png is not an image that can be read: remove it" in _refused(folder)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_a_truncated_image(write_image: Writer, suffix: str) -> None:
    folder = write_image(f"a.{suffix}").parent
    broken = write_image(f"b.{suffix}")
    broken.write_bytes(broken.read_bytes()[:200])
    assert f"b.{suffix}" in _refused(folder)


def test_an_empty_file_and_a_file_instead_of_a_folder(write_image: Writer) -> None:
    path = write_image("a.png")
    assert "is a file, not a folder" in _refused(path)
    (path.parent / "b.png").touch()
    assert "b.png" in _refused(path.parent)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_folder: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be read ([Errno 13] Permission denied): check its permissions" in _refused(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        list_images(tmp_path / "absent")


def test_one_image_is_not_enough(write_image: Writer) -> None:
    assert "holds 1 image(s)" in _refused(write_image("a.png").parent)


@pytest.mark.parametrize("image_size", [32, "original"])
def test_a_single_pixel_cannot_be_squeezed(write_image: Writer, image_size: object) -> None:
    folder = write_image("a.png", height=1, width=1).parent
    write_image("b.png", height=1, width=1)
    assert "is 1x1 pixels; the smallest image that can be squeezed is 2x2" in _refused(folder, image_size=image_size)


def test_3x5_images(write_image: Writer) -> None:
    paths = [write_image(name, height=3, width=5) for name in ("a.png", "b.png")]
    data = _load(paths[0].parent, image_size="original")
    assert data.train.shape == (1, 3, 2, 4)
    pixels = [read_picture(path).pixels[:, :2, :4] for path in paths]
    assert any(torch.equal(data.train[0], image) for image in pixels)
    assert "cropped from 3x5 to 2x4 (height x width): squeeze(2) needs even sides" in data.notes
    enlarged = _load(paths[0].parent)
    assert enlarged.train.shape == (1, 3, 32, 32)
    assert "2 of 2 images were smaller and were enlarged" in enlarged.notes[-1]


def test_different_sizes(write_image: Writer) -> None:
    folder = write_image("a.png", height=40, width=32).parent
    write_image("b.png", height=41, width=32)
    message = _refused(folder, image_size="original")
    assert "must all be equal" in message
    assert "40x32" in message
    assert "41x32" in message
    data = _load(folder)
    assert data.native_size == "various"
    assert data.notes[-1].startswith("resized from various sizes to 32x32")


@pytest.mark.parametrize(
    ("mode", "suffix", "remark"),
    [
        ("L", "png", "grey, converted to RGB"),
        ("1", "png", "grey, converted to RGB"),
        ("RGBA", "png", "RGBA, converted to RGB without the alpha channel"),
        ("LA", "png", "LA, converted to RGB without the alpha channel"),
        ("P", "png", "palette, converted to RGB"),
        ("CMYK", "jpg", "CMYK, converted to RGB"),
    ],
)
def test_other_modes_are_converted_and_said(write_image: Writer, mode: str, suffix: str, remark: str) -> None:
    folder = write_image(f"a.{suffix}", mode=mode).parent
    write_image(f"b.{suffix}")
    data = _load(folder, image_size="original")
    assert data.train.shape == (1, 3, 40, 32)
    assert f"1 of 2 images: {remark}" in data.notes


def test_grey_gives_equal_channels_and_alpha_leaves_the_colours(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert torch.equal(read_picture(tmp_path / "grey.png").pixels, torch.from_numpy(grey).expand(3, 8, 8))
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    expected = torch.from_numpy(colours[..., :3].transpose(2, 0, 1).copy())
    assert torch.equal(read_picture(tmp_path / "alpha.png").pixels, expected)


def test_16_bit_grey_keeps_its_leading_bits(tmp_path: Path) -> None:
    grey = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(grey).save(tmp_path / name)
        picture = read_picture(tmp_path / name)
        assert torch.equal(picture.pixels[1], torch.from_numpy((grey >> 8).astype(np.uint8)))
        assert picture.remark == "16-bit grey, reduced to 8-bit RGB"


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert read_picture(tmp_path / "a.png").pixels[:, 0, 0].tolist() == [10, 20, 30]


def test_nan_and_unscaled_pixels(write_image: Writer) -> None:
    folder = write_image("a.png").parent
    values = np.full((40, 32), 0.5, dtype=np.float32)
    Image.fromarray(values).save(folder / "b.tiff")
    assert "holds floating-point pixels, whose scale is unknown: save it again as 8-bit PNG" in _refused(folder)
    for bad in (np.nan, np.inf):
        values[3, 4] = bad
        Image.fromarray(values).save(folder / "b.tiff")
        assert "b.tiff holds pixels that are NaN or infinite: remove it" in _refused(folder)
    Image.fromarray(np.full((40, 32), 70000, dtype=np.int32)).save(folder / "b.tiff")
    assert "holds 32-bit integer pixels" in _refused(folder)


def test_first_page_of_several(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (10, 20)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    picture = read_picture(tmp_path / "a.tiff")
    assert picture.pixels[0, 0, 0] == 10
    assert picture.remark == "several frames or pages, the first is used"


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").pixels.shape == (3, 6, 4)
