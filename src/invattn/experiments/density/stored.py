"""A stored flow, and the data that it was trained on, found again from what is kept beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from invattn._errors import DataError
from invattn._files import read_json
from invattn.bijections import Composed
from invattn.experiments.density.data import DequantisedData, open_images
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.flows import Flow
from invattn.hub import FlowConfig, load_flow

DATA_FILE = "data.json"
"""Beside a stored model: what it was trained on."""

_DEFAULTS = {"train_size": 2000, "test_size": 500, "seed": 0, "levels": 256}


@dataclass(frozen=True)
class StoredData:
    """What ``data.json`` of a model folder says.

    Attributes:
        folder: The model's.
        values: Its content; empty where there is no such file.
    """

    folder: Path
    values: dict[str, Any]

    @property
    def levels(self) -> int:
        """Grey levels of the images."""
        return self.number("levels")

    def images(
        self,
        *,
        name: str | None,
        data_root: Path | None,
        image_size: int,
        test_size: int | None = None,
        seed: int | None = None,
    ) -> DequantisedData:
        """Read the images that the flow was trained on, or others in their place.

        The size is the side in pixels that the flow takes, the seed that of the noise; None stands for what the
        training had.

        Raises:
            DataError: If nothing says which images, they cannot be read, or are not those of the training.
        """
        own = self.values.get("name")
        if name is None and not isinstance(own, str):
            raise DataError(f"{self.folder} has no {DATA_FILE} that names its images. Name them: --data.")
        request = ImageRequest(
            str(own) if name is None else name,
            data_root=data_root,
            train_size=self.number("train_size"),
            test_size=self.number("test_size"),
            image_size=image_size,
            seed=self.number("seed"),
        )
        data = open_images(request, flips=False)
        known = self.values.get("fingerprint")
        if name is None and known is not None and data.images.fingerprint != known:
            raise DataError(
                f"the images found now are not those that {self.folder} was trained on (another fingerprint). Give the "
                "folder of the training as --data-root, or name other images on purpose: --data."
            )
        if test_size is not None and test_size != data.test_size:
            data = open_images(replace(request, test_size=test_size), flips=False)
        return data if seed is None else replace(data, seed=seed)

    def number(self, key: str) -> int:
        """Return a whole number, the usual one where the file does not say; DataError if it is no whole number."""
        value = self.values.get(key, _DEFAULTS[key])
        if not isinstance(value, int):
            raise DataError(f"{self.folder / DATA_FILE} must hold a whole number as {key!r}; got {value!r}.")
        return value


def read_stored_data(folder: Path) -> StoredData:
    """Read ``data.json`` of a model folder, if it is there; DataError if it is damaged."""
    path = folder / DATA_FILE
    values = read_json(path) if path.exists() else {}
    if not isinstance(values, dict):
        raise DataError(f"{path} does not describe data. Restore it from its source, or remove it.")
    return StoredData(folder, values)


def open_flow(folder: Path) -> tuple[Flow, FlowConfig]:
    """Return the distribution that a folder holds, and what it is built from.

    Raises:
        DataError: If the folder holds no flow.
        CertificateError: If the model is not the one that was certified.
    """
    loaded = load_flow(folder)
    assert isinstance(loaded.model, Composed)
    return loaded.config.distribution(loaded.model).eval(), loaded.config
