from pathlib import Path
from typing import Any, NoReturn

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from invattn._errors import DataError
from invattn.experiments.kit.data import hub as hub_module
from invattn.experiments.kit.data.hub import HUB_SETS, HubSet, open_hub, pictures_of_split
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import gather, load_reconstruction_data


def _images(count: int, *, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _write(folder: Path, *, column: str) -> dict[str, torch.Tensor]:
    """Write a data set in the hub's format: one Parquet file for each split, with an image and a label column."""
    (folder / "data").mkdir(parents=True)
    written = {}
    for seed, split in enumerate(("train", "test")):
        pixels = _images(6 - seed, seed=seed)
        rows = {column: [Image.fromarray(image) for image in pixels], "label": [0] * len(pixels)}
        features = datasets.Features({column: datasets.Image(), "label": datasets.Value("int64")})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            folder / "data" / f"{split}-00000-of-00001.parquet"
        )
        written[split] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return written


def wanted(train: int, test: int) -> ImageRequest:
    return ImageRequest("hub", data_root=None, train_size=train, test_size=test, image_size=32, seed=0)


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


@pytest.mark.parametrize("test_from_end", [False, True])
def test_reads_parquet_files_of_the_hubs_format(tmp_path: Path, test_from_end: bool) -> None:
    written = _write(tmp_path / "set", column="img")
    hub_set = HubSet(str(tmp_path / "set"), None, "img", test_from_end=test_from_end)
    source = open_hub(hub_set, wanted(4, 2), cache_dir=tmp_path / "cache")
    images = gather(source, wanted(4, 2))
    assert torch.equal(images.train, written["train"][:4])
    assert torch.equal(images.test, written["test"][-2:] if test_from_end else written["test"][:2])
    assert images.notes == (f"downloaded from the Hugging Face hub: {hub_set.path}",)


def test_fewer_images_than_asked_for(tmp_path: Path) -> None:
    _write(tmp_path / "set", column="image")
    hub_set = HubSet(str(tmp_path / "set"), None, "image", test_from_end=True)
    source = open_hub(hub_set, wanted(100, 100), cache_dir=tmp_path / "cache")
    images = gather(source, wanted(100, 100))
    assert (len(images.train), len(images.test)) == (6, 5)
    assert "asked for 100 test images, 5 are there" in images.notes


@pytest.mark.parametrize("name", ["cifar10", "svhn", "celeba"])
def test_without_data_root_the_hub_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, config: str | None, *, split: str, cache_dir: str | None) -> datasets.Dataset:
        asked.append((path, config, split, cache_dir))
        images = [Image.fromarray(image) for image in _images(8, seed=len(split))]
        features = datasets.Features({HUB_SETS[name].column: datasets.Image()})
        return datasets.Dataset.from_dict({HUB_SETS[name].column: images}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_reconstruction_data(
        ImageRequest(name, data_root=None, train_size=3, test_size=2, image_size=32, seed=0)
    )
    expected = _images(8, seed=len("test"))
    chosen = expected[-2:] if name == "celeba" else expected[:2]
    assert torch.equal(data.test, torch.from_numpy(chosen).permute(0, 3, 1, 2))
    path, config = HUB_SETS[name].path, HUB_SETS[name].config
    assert asked == [(path, config, "train", None), (path, config, "test", None)]


def test_offline_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_arguments: object, **_options: object) -> NoReturn:
        raise ConnectionError("Couldn't reach\n\n  the Hub " + "x" * 500)

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"could not be downloaded .* pass --data-root") as error:
        load_reconstruction_data(ImageRequest("svhn", data_root=None, train_size=3, test_size=2, image_size=32, seed=0))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_missing_split_is_one_line(tmp_path: Path) -> None:
    _write(tmp_path / "set", column="img")
    (tmp_path / "set" / "data" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="--data-root") as error:
        open_hub(HubSet(str(tmp_path / "set"), None, "img"), wanted(1, 1), cache_dir=tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_wrong_columns_are_one_line() -> None:
    split = datasets.Dataset.from_dict({"label": [1, 2]})
    with pytest.raises(DataError, match=r"no column 'img' \(it has label\)"):
        list(pictures_of_split(split, column="img", rows=[0], name="test"))
    with pytest.raises(DataError, match="'label' of the test split holds no images"):
        list(pictures_of_split(split, column="label", rows=[0], name="test"))


def test_without_the_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> NoReturn:
        raise ModuleNotFoundError("No module named 'datasets'")

    monkeypatch.setattr("invattn.experiments.kit.data.reading.importlib.import_module", missing)
    with pytest.raises(DataError, match=r"datasets is needed .* pip install"):
        hub_module.open_hub(HUB_SETS["cifar10"], wanted(1, 1))
