from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from invattn._errors import DataError
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data


def _write(root: Path, name: str, *, count: int, labels: bool = True) -> torch.Tensor:
    root.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
    content: dict[str, object] = {"X": images}
    if labels:
        content["y"] = np.ones((count, 1), dtype=np.uint8)
    scipy.io.savemat(root / name, content)
    return torch.from_numpy(images).permute(3, 2, 0, 1)


def _load(root: Path, *, train_size: int = 4, test_size: int = 2) -> ImageData:
    return load_reconstruction_data(
        ImageRequest("svhn", data_root=root, train_size=train_size, test_size=test_size, image_size=32, seed=0)
    )


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("place", [".", "svhn"])
def test_takes_the_first_images_of_each_file(tmp_path: Path, place: str, labels: bool) -> None:
    train = _write(tmp_path / place, "train_32x32.mat", count=6, labels=labels)
    test = _write(tmp_path / place, "test_32x32.mat", count=5, labels=labels)
    data = _load(tmp_path)
    assert torch.equal(data.train, train[:4])
    assert torch.equal(data.test, test[:2])
    assert data.notes == ()


def test_without_the_test_file_the_last_quarter_is_held_out(tmp_path: Path) -> None:
    images = _write(tmp_path, "train_32x32.mat", count=8)
    data = _load(tmp_path, train_size=7, test_size=7)
    assert torch.equal(data.train, images[:6])
    assert torch.equal(data.test, images[6:])
    assert data.notes[0].startswith("there is no test file, so the last quarter of train_32x32.mat is held out")
    assert data.notes[1:] == ("asked for 7 training images, 6 are there", "asked for 7 test images, 2 are there")


def test_a_single_image_keeps_its_shape(tmp_path: Path) -> None:
    _write(tmp_path, "train_32x32.mat", count=3)
    image = np.arange(3072, dtype=np.uint16).astype(np.uint8).reshape(32, 32, 3)
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": image})
    assert torch.equal(_load(tmp_path).test, torch.from_numpy(image).permute(2, 0, 1)[None])


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    with pytest.raises(DataError, match=r"no train_32x32\.mat in"):
        _load(tmp_path)
    scipy.io.savemat(path, {"y": np.ones((3, 1))})
    with pytest.raises(DataError, match="holds no variable X"):
        _load(tmp_path)
    scipy.io.savemat(path, {"X": np.zeros((32, 32, 3, 2))})
    with pytest.raises(DataError, match="holds X as float64"):
        _load(tmp_path)
    scipy.io.savemat(path, {"X": np.zeros((2, 3, 32, 32), dtype=np.uint8)})
    with pytest.raises(DataError, match=r"shape \(2, 3, 32, 32\)"):
        _load(tmp_path)
    scipy.io.savemat(path, {"X": np.zeros((32, 32, 3), dtype=np.uint8)})
    with pytest.raises(DataError, match="add the test file"):
        _load(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 200, 5000])
def test_a_truncated_file_is_one_line(tmp_path: Path, kept: int) -> None:
    _write(tmp_path, "train_32x32.mat", count=8)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError) as error:
        _load(tmp_path)
    assert "\n" not in str(error.value)
    assert "fetch it again" in str(error.value)


def test_real_files(real_data: Path) -> None:
    data = _load(real_data, train_size=1000, test_size=1000)
    stored = scipy.io.loadmat(real_data / "svhn" / "train_32x32.mat")["X"]
    if not (real_data / "svhn" / "test_32x32.mat").exists() and stored.shape[-1] == 800:
        assert data.train.shape == (600, 3, 32, 32)
        assert data.test.shape == (200, 3, 32, 32)
        assert np.array_equal(data.test[-1].permute(1, 2, 0).numpy(), stored[..., 799])
    assert np.array_equal(data.train[1].permute(1, 2, 0).numpy(), stored[..., 1])
