"""One training of camouflaged object detection: its name, its files, and what its numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from invattn._errors import DataError
from invattn._files import read_json, write_json
from invattn.experiments.camouflage.config import CamouflageConfig
from invattn.experiments.camouflage.data import CamouflageData
from invattn.experiments.camouflage.network import NetworkConfig
from invattn.experiments.camouflage.record import CamouflageRow
from invattn.experiments.kit.run import source_hash
from invattn.hub.certificate import hash_json


@dataclass(frozen=True)
class CamouflageCell:
    """A training of one row and its evaluation.

    Attributes:
        config: The user's options.
        data: What it trains and tests on.
        fingerprints: Hash of each set.
        attention: Kind of the attention, or ``none``.
        recipe: Form of the attention, or ``none``.
        repeat: Number of the repeat, from 0.
    """

    config: CamouflageConfig
    data: CamouflageData
    fingerprints: Mapping[str, str]
    attention: str
    recipe: str
    repeat: int

    @property
    def variant(self) -> str:
        """``<attention>-<recipe>``."""
        return f"{self.attention}-{self.recipe}"

    @property
    def name(self) -> str:
        """``<attention>-<recipe>-<repeat>``."""
        return f"{self.variant}-{self.repeat}"

    @property
    def seed(self) -> int:
        """The seed of this training."""
        return self.config.seed + self.repeat

    @property
    def network_config(self) -> NetworkConfig:
        """What the network is built from."""
        return self.config.network_config(self.attention, self.recipe)

    @property
    def key(self) -> str:
        """Hash of everything that the numbers depend on."""
        own = {"model": self.network_config.to_json(), "repeat": self.repeat, "code": source_hash()}
        data = {"data": dict(self.fingerprints), "torch": torch.__version__}
        return hash_json(self.config.settings(of_a_cell=True) | own | data)

    def file(self, kind: str) -> Path:
        """Return the path of ``<name>.<kind>`` among the cells."""
        return self.config.output / "cells" / f"{self.name}.{kind}"

    def finish(self, row: CamouflageRow) -> None:
        """Write the numbers; their file says that the cell is done. A training that stopped early leaves its state.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(self.file("json"), {"key": self.key, "row": row.to_json()})
        if row.extra.get("stopped_at") is None:
            self.file("ckpt").unlink(missing_ok=True)

    def finished(self) -> CamouflageRow | None:
        """Return the kept numbers, or None if the cell is not finished.

        Raises:
            DataError: If they are of other options, data, code or version.
        """
        if not self.file("json").exists():
            return None
        content = read_json(self.file("json"))
        if not isinstance(content, dict) or content.get("key") != self.key:
            raise DataError(
                f"{self.file('json').parent} holds results of other options, data or code. Choose another --output, "
                "or delete that folder."
            )
        return CamouflageRow.from_json(content.get("row"))
