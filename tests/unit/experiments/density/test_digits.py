"""The digits against scikit-learn's own reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.density import images as images_module
from invattn.experiments.density.images import load_density_images
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData


def load(train: int, test: int) -> ImageData:
    return load_density_images(
        ImageRequest("digits", data_root=None, train_size=train, test_size=test, image_size=8, seed=0)
    )


def test_they_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images = torch.from_numpy(datasets.load_digits().images.astype(np.uint8))[:, None]
    all_of_them, few = load(1500, 297), load(3, 2)
    assert torch.equal(torch.cat([all_of_them.train, all_of_them.test]), images)
    assert int(all_of_them.train.max()) == 16
    assert "0 to 1499" in all_of_them.notes[0]
    assert torch.equal(few.train, all_of_them.train[:3])
    assert torch.equal(few.test, all_of_them.test[:2])


@pytest.mark.parametrize(("train", "test", "part"), [(1501, 2, "train"), (5, 298, "test")])
def test_more_than_there_are_is_an_error(train: int, test: int, part: str) -> None:
    with pytest.raises(DataError, match=f"got --{part}-size"):
        load(train, test)


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(b"1,2,3\n4,5,6\n", mtime=0), gzip.compress(b"a,b\n", mtime=0)],
    ids=["no gzip", "short rows", "no numbers"],  # the same names in every process
)
def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(images_module, "_digits_file", lambda: path)
    with pytest.raises(DataError, match="install scikit-learn again"):
        load(1, 1)


def test_without_scikit_learn_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install"):
        load(1, 1)
