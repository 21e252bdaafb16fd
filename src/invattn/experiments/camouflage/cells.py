"""One training of camouflaged object detection: what its numbers depend on, and how they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from invattn.experiments.camouflage.config import CamouflageConfig
from invattn.experiments.camouflage.data import CamouflageData
from invattn.experiments.camouflage.network import NetworkConfig
from invattn.experiments.camouflage.record import CamouflageRow
from invattn.experiments.kit.cells import Cell


@dataclass(frozen=True, kw_only=True)
class CamouflageCell(Cell[CamouflageConfig, CamouflageData, CamouflageRow]):
    """A training of one row and its evaluation.

    Attributes:
        fingerprints: Hash of each set.
    """

    code: ClassVar[str] = "invattn.experiments.camouflage.run"

    fingerprints: Mapping[str, str]

    @property
    def model_config(self) -> NetworkConfig:
        """What the network is built from."""
        return self.config.network_config(self.attention, self.recipe)

    def settings(self) -> dict[str, Any]:
        """Return the options and hashes of the data that the numbers depend on."""
        return self.config.settings(of_a_cell=True) | {"data": dict(self.fingerprints)}

    def written(self, result: CamouflageRow) -> dict[str, Any]:
        """Return the row under its name in the cell's file."""
        return {"row": result.to_json()}

    def read(self, content: dict[str, Any]) -> CamouflageRow:
        """Return the row that a cell's file holds."""
        return CamouflageRow.from_json(content.get("row"))
