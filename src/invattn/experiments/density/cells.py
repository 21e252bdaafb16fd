"""One training of the density experiment: what its numbers depend on, and how they are kept."""

from __future__ import annotations

from typing import Any, ClassVar

from invattn.experiments.density.config import DensityConfig
from invattn.experiments.density.data import DensityData
from invattn.experiments.density.record import DensityResult
from invattn.experiments.kit.cells import Cell
from invattn.hub import FlowConfig


class DensityCell(Cell[DensityConfig, DensityData, DensityResult]):
    """A training of one flow and its evaluation."""

    code: ClassVar[str] = "invattn.experiments.density.run"

    @property
    def model_config(self) -> FlowConfig:
        """What the flow is built from."""
        return self.config.model_config(self.attention, self.recipe)

    def settings(self) -> dict[str, Any]:
        """Return the options and hashes of the data that the numbers depend on."""
        return self.config.settings(of_a_cell=True) | dict(self.data.key)

    def written(self, result: DensityResult) -> dict[str, Any]:
        """Return the result under its name in the cell's file."""
        return {"result": result.to_json()}

    def read(self, content: dict[str, Any]) -> DensityResult:
        """Return the result that a cell's file holds."""
        return DensityResult.from_json(content.get("result"))
