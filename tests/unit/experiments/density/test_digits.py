"""The digits against scikit-learn's own reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.density import digits
from invattn.experiments.density.digits import load_digits


def test_they_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images = torch.from_numpy(datasets.load_digits().images.astype(np.uint8))[:, None]
    train, test, notes = load_digits(train_size=1500, test_size=297)
    assert torch.equal(torch.cat([train, test]), images)
    assert int(train.max()) == 16
    assert "0 to 1499" in notes[0]
    few, fewer, _ = load_digits(train_size=3, test_size=2)
    assert torch.equal(few, train[:3])
    assert torch.equal(fewer, test[:2])


@pytest.mark.parametrize(("train", "test", "part"), [(1501, 2, "train"), (5, 298, "test")])
def test_more_than_there_are_is_an_error(train: int, test: int, part: str) -> None:
    with pytest.raises(DataError, match=f"got --{part}-size"):
        load_digits(train_size=train, test_size=test)


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(b"1,2,3\n4,5,6\n", mtime=0), gzip.compress(b"a,b\n", mtime=0)],
    ids=["no gzip", "short rows", "no numbers"],  # the same names in every process
)
def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(digits, "_file", lambda: path)
    with pytest.raises(DataError, match="install scikit-learn again"):
        load_digits(train_size=1, test_size=1)


def test_without_scikit_learn_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install"):
        load_digits(train_size=1, test_size=1)
