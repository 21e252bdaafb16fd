"""Small data sets in the publishers' layouts."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Writer = Callable[..., Path]


@pytest.fixture
def write_image(tmp_path: Path) -> Writer:
    """Write `folder/name` with random 8-bit pixels of a size and mode; the same name gives the same pixels."""

    def write(name: str, *, height: int = 40, width: int = 32, mode: str = "RGB", folder: str = "images") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(sum(map(ord, name))).integers(0, 256, (height, width, 4), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def write_batch(tmp_path: Path) -> Writer:
    """Write a CIFAR-10 batch of n random images, as Python 3 pickles it at the protocol of the originals."""

    def write(name: str, *, count: int, folder: str = "cifar-10-batches-py") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = np.random.default_rng(sum(map(ord, name))).integers(0, 256, (count, 3072), dtype=np.uint8)
        path.write_bytes(pickle.dumps({"batch_label": name, "labels": [0] * count, "data": data}, protocol=2))
        return path

    return write
