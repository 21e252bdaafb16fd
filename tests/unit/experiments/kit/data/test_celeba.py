from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.data.pixels import read_picture
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data


def _load(root: Path, *, size: int = 3, image_size: object = "original") -> ImageData:
    return load_reconstruction_data(
        ImageRequest(
            "celeba",
            data_root=root,
            train_size=size,
            test_size=size,
            image_size=image_size,  # type: ignore[arg-type]
            seed=0,
        )
    )


@pytest.mark.parametrize(
    "place", ["img_align_celeba", "celeba/img_align_celeba", "img_align_celeba/img_align_celeba", "faces"]
)
def test_first_files_train_and_last_files_test(write_image: Callable[..., Path], tmp_path: Path, place: str) -> None:
    paths = [write_image(f"{number:06d}.jpg", folder=place, height=218, width=178) for number in range(1, 9)]
    data = _load(tmp_path / place if place == "faces" else tmp_path)
    assert torch.equal(data.train, torch.stack([read_picture(path).pixels for path in paths[:3]]))
    assert torch.equal(data.test, torch.stack([read_picture(path).pixels for path in paths[-3:]]))
    assert data.native_size == "218x178"
    assert data.notes == ()


def test_with_few_files_none_serves_twice(write_image: Callable[..., Path], tmp_path: Path) -> None:
    for number in range(5):
        write_image(f"{number:06d}.jpg", folder="img_align_celeba")
    data = _load(tmp_path, size=10)
    assert (len(data.train), len(data.test)) == (3, 2)
    together = torch.cat([data.train, data.test]).flatten(1)
    assert len(torch.unique(together, dim=0)) == 5
    assert "asked for 10 training images, 3 are there" in data.notes


def test_half_size_files_are_cropped_to_even_sides(write_image: Callable[..., Path], tmp_path: Path) -> None:
    paths = [write_image(f"{number:06d}.jpg", folder="img_align_celeba", height=109, width=89) for number in range(6)]
    data = _load(tmp_path)
    assert data.train.shape == (3, 3, 108, 88)
    assert torch.equal(data.train[0], read_picture(paths[0]).pixels[:, :108, :88])
    assert data.notes == ("cropped from 109x89 to 108x88 (height x width): squeeze(2) needs even sides",)
    assert data.native_size == "109x89"


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no img_align_celeba in"):
        _load(tmp_path)
    (tmp_path / "img_align_celeba").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        _load(tmp_path)
    with pytest.raises(DataError, match=r"no folder .* for celeba: check --data-root"):
        _load(tmp_path / "absent")


def test_real_files(real_data: Path) -> None:
    files = sorted((real_data / "celeba" / "img_align_celeba").glob("*.jpg"))
    data = _load(real_data, size=20, image_size=32)
    assert data.train.shape == data.test.shape == (20, 3, 32, 32)
    pixels = read_picture(files[-1]).pixels
    height, width = pixels.shape[-2:]
    square = pixels[:, (height - width) // 2 :][:, :width]
    # the mean survives an antialiased resize to within the weight of the border pixels
    assert abs(square.float().mean() - data.test[-1].float().mean()) < 2
    original = _load(real_data, size=20)
    assert torch.equal(original.test[-1], pixels[:, : height // 2 * 2, : width // 2 * 2])
