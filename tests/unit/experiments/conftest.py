"""Sample runs, loaded by path since test folders are no packages, and small data sets in the publishers' layouts."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="session")
def sample() -> ModuleType:
    """A reconstruction run."""
    return _load("sample_run")


@pytest.fixture(scope="session")
def density() -> ModuleType:
    """A density run over images."""
    return _load("sample_density")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
