from pathlib import Path

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.data.reading import ImageRequest, Picture, Pictures, disjoint_counts
from invattn.experiments.kit.data.sets import SETS, fingerprint, gather, load_reconstruction_data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_size": 0}, "train_size must be at least 1; got 0"),
        ({"test_size": -3}, "test_size must be at least 1; got -3"),
        ({"image_size": 33}, "image_size must be an even number"),
        ({"image_size": 0}, "image_size must be an even number"),
    ],
)
def test_impossible_sizes_are_refused(arguments: dict[str, int], message: str) -> None:
    sizes = {"train_size": 2, "test_size": 2, "image_size": 32} | arguments
    with pytest.raises(DataError, match=message):
        load_reconstruction_data(ImageRequest("photos", data_root=None, seed=0, **sizes))


def test_a_data_root_that_serves_nothing_is_said(tmp_path: Path) -> None:
    data = load_reconstruction_data(
        ImageRequest("photos", data_root=tmp_path, train_size=1, test_size=1, image_size=32, seed=0)
    )
    assert data.notes[-1] == "data_root was given and is not used by photos"
    assert SETS == ("photos", "cifar10", "svhn", "celeba")


def test_fingerprint_covers_pixels_and_shapes() -> None:
    train = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    test = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    original = fingerprint(train, test)
    assert len(original) == 64
    assert original == fingerprint(train.clone(), test.clone())
    changed = train.clone()
    changed[0, 2, 3, 3] += 1
    assert fingerprint(changed, test) != original
    assert fingerprint(train.view(1, 3, 2, 8), test) != original
    assert fingerprint(test, train) != original
    # values count, not the layout in memory
    assert fingerprint(train.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), test) == original


@pytest.mark.parametrize(
    ("total", "train_size", "test_size", "expected"),
    [
        (10, 4, 6, (4, 6)),
        (10, 1, 1, (1, 1)),
        (10, 10, 10, (5, 5)),
        (10, 1000, 1, (9, 1)),
        (10, 1, 1000, (1, 9)),
        (2, 5, 5, (1, 1)),
        (9, 6, 6, (5, 4)),
    ],
)
def test_shares_never_overlap(total: int, train_size: int, test_size: int, expected: tuple[int, int]) -> None:
    assert disjoint_counts(total, train_size=train_size, test_size=test_size, name="x") == expected


@pytest.mark.parametrize("total", range(2, 12))
def test_shares_are_never_larger_than_asked_for(total: int) -> None:
    for train_size in range(1, 12):
        for test_size in range(1, 12):
            train, test = disjoint_counts(total, train_size=train_size, test_size=test_size, name="x")
            assert 1 <= train <= train_size
            assert 1 <= test <= test_size
            assert train + test <= total


def test_an_empty_part_is_refused() -> None:
    picture = Picture("a", torch.zeros(3, 4, 4, dtype=torch.uint8))
    one = ImageRequest("one", data_root=None, train_size=1, test_size=1, image_size=4, seed=0)
    with pytest.raises(DataError, match="there are no test images"):
        gather(Pictures([picture], []), one)
    with pytest.raises(DataError, match="there are no training images"):
        gather(Pictures([], [picture]), one)
