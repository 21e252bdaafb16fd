import socket
from itertools import chain
from typing import NoReturn

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.data import photos as photos_module
from invattn.experiments.kit.data.photos import TEST_PICTURES, TRAIN_PICTURES, read_shipped
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData, load_reconstruction_data


def _load(*, image_size: object = 32, seed: int = 0, train_size: int = 10, test_size: int = 6) -> ImageData:
    return load_reconstruction_data(
        ImageRequest(
            "photos",
            data_root=None,
            train_size=train_size,
            test_size=test_size,
            image_size=image_size,  # type: ignore[arg-type]
            seed=seed,
        )
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_all_pictures_are_installed_with_scikit_image() -> None:
    files = list(chain.from_iterable([*TRAIN_PICTURES.values(), *TEST_PICTURES.values()]))
    assert len(files) == 9  # eight photographs, one of them a stereo pair
    for file in files:
        pixels = read_shipped(file)
        assert pixels.dtype == torch.uint8
        assert pixels.shape[0] == 3
        assert min(pixels.shape[1:]) >= 256
        assert pixels.float().std() > 10
        # colour, not grey
        assert (pixels[0].float() - pixels[2].float()).abs().mean() > 1


@pytest.mark.usefixtures("no_network")
def test_shapes_without_network() -> None:
    data = _load()
    assert data.train.shape == (10, 3, 32, 32)
    assert data.test.shape == (6, 3, 32, 32)
    assert data.train.dtype == torch.uint8
    assert data.native_size == "various"
    original = _load(image_size="original")
    assert original.train.shape == (10, 3, 218, 178)
    assert original.native_size == "218x178"
    assert "chelsea" in original.notes[0]


def test_training_and_test_crops_come_from_different_pictures() -> None:
    assert not set(TRAIN_PICTURES) & set(TEST_PICTURES)
    assert not set(chain(*TRAIN_PICTURES.values())) & set(chain(*TEST_PICTURES.values()))
    data = _load(image_size="original", train_size=10, test_size=6)
    train = [read_shipped(file) for file in chain(*TRAIN_PICTURES.values())]
    test = [read_shipped(file) for file in chain(*TEST_PICTURES.values())]
    for crop in data.test:
        assert any(_holds(picture, crop) for picture in test)
        assert not any(_holds(picture, crop) for picture in train)
    for crop in data.train:
        assert any(_holds(picture, crop) for picture in train)
        assert not any(_holds(picture, crop) for picture in test)


@pytest.mark.parametrize("image_size", [32, "original"])
def test_the_seed_decides_everything(image_size: object) -> None:
    data = _load(image_size=image_size, seed=5)
    torch.manual_seed(99)
    again = _load(image_size=image_size, seed=5)
    other = _load(image_size=image_size, seed=6)
    assert torch.equal(data.train, again.train)
    assert torch.equal(data.test, again.test)
    assert data.fingerprint == again.fingerprint
    assert not torch.equal(data.test, other.test)
    assert data.fingerprint != other.fingerprint


def test_more_crops_begin_with_the_same_ones() -> None:
    few, many = _load(train_size=4, test_size=2), _load(train_size=9, test_size=7)
    assert torch.equal(few.train, many.train[:4])
    assert torch.equal(few.test, many.test[:2])


def test_crops_differ() -> None:
    data = _load(train_size=60, test_size=60)
    assert len(torch.unique(torch.cat([data.train, data.test]).flatten(1), dim=0)) == 120


def test_image_size_up_to_256() -> None:
    assert _load(image_size=256, train_size=1, test_size=3).test.shape == (3, 3, 256, 256)
    with pytest.raises(DataError, match="at most 256 pixels; got image size 258"):
        _load(image_size=258)


def test_a_picture_that_is_not_shipped_is_one_line() -> None:
    with pytest.raises(DataError, match=r"does not ship absent\.png"):
        read_shipped("absent.png")


def test_without_scikit_image_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_package: str) -> NoReturn:
        raise ModuleNotFoundError("No module named 'skimage'")

    monkeypatch.setattr(photos_module.resources, "files", missing)
    with pytest.raises(DataError, match="scikit-image, which is not installed: pip install"):
        _load()


def _holds(picture: torch.Tensor, crop: torch.Tensor) -> bool:
    """Say whether `crop` is a part of `picture`; the first pixels of its first row name the candidates."""
    height, width = crop.shape[-2:]
    last_column = picture.shape[-1] - width + 1
    candidates = torch.ones(picture.shape[-2] - height + 1, last_column, dtype=torch.bool)
    for column in range(12):
        shifted = picture[:, : len(candidates), column : column + last_column]
        candidates &= (shifted == crop[:, 0, column, None, None]).all(0)
    places = candidates.nonzero().tolist()
    return any(torch.equal(picture[:, top : top + height, left : left + width], crop) for top, left in places)
