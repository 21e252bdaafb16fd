from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.data.publishers import read_batch
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data


def _load(root: Path, *, train_size: int = 5, test_size: int = 3) -> ImageData:
    return load_reconstruction_data(
        ImageRequest("cifar10", data_root=root, train_size=train_size, test_size=test_size, image_size=32, seed=0)
    )


def test_takes_the_first_images_in_order(write_batch: Callable[..., Path], tmp_path: Path) -> None:
    first = write_batch("data_batch_1", count=4)
    third = write_batch("data_batch_3", count=4)
    test = write_batch("test_batch", count=6)
    data = _load(tmp_path)
    assert torch.equal(data.train, torch.cat([read_batch(first), read_batch(third)])[:5])
    assert torch.equal(data.test, read_batch(test)[:3])
    assert data.native_size == "32x32"
    assert data.notes == ()


def test_later_batches_are_not_read_without_need(write_batch: Callable[..., Path], tmp_path: Path) -> None:
    write_batch("data_batch_1", count=5)
    write_batch("data_batch_2", count=5).write_bytes(b"damaged")
    write_batch("test_batch", count=3)
    assert len(_load(tmp_path).train) == 5
    with pytest.raises(DataError, match="data_batch_2"):
        _load(tmp_path, train_size=6)


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py", "elsewhere"])
def test_finds_the_batches(write_batch: Callable[..., Path], tmp_path: Path, place: str) -> None:
    write_batch("data_batch_1", count=5, folder=place)
    write_batch("test_batch", count=3, folder=place)
    assert len(_load(tmp_path / place).train) == 5
    if place != "elsewhere":
        assert len(_load(tmp_path).test) == 3


def test_partial_batches_are_noted(write_batch: Callable[..., Path], tmp_path: Path) -> None:
    write_batch("data_batch_1", count=5)
    write_batch("test_batch", count=3)
    data = _load(tmp_path, train_size=1000, test_size=500)
    assert data.notes == ("asked for 1000 training images, 5 are there", "asked for 500 test images, 3 are there")


def test_without_a_test_batch_the_last_quarter_is_held_out(write_batch: Callable[..., Path], tmp_path: Path) -> None:
    images = read_batch(write_batch("data_batch_1", count=8))
    data = _load(tmp_path, train_size=100, test_size=100)
    assert torch.equal(data.train, images[:6])
    assert torch.equal(data.test, images[6:])
    assert "last quarter" in data.notes[0]


def test_what_is_missing_is_one_line(write_batch: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no cifar-10-batches-py/data_batch_1 in .* unpack"):
        _load(tmp_path)
    write_batch("data_batch_1", count=1)
    with pytest.raises(DataError, match="add the test file"):
        _load(tmp_path)


def test_real_files(real_data: Path) -> None:
    data = _load(real_data, train_size=4100, test_size=1000)
    folder = real_data / "cifar10" / "cifar-10-batches-py"
    assert torch.equal(data.test, read_batch(folder / "test_batch")[:1000])
    first = read_batch(folder / "data_batch_1")
    assert torch.equal(data.train[: len(first)], first[:4100])
    # the first training image is the well-known frog: its first red pixels
    assert data.train[0, 0, 0, :4].tolist() == [59, 43, 50, 68]
    assert data.train.shape == (4100, 3, 32, 32)
