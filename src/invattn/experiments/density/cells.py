"""One training of the density experiment: its name, its files, and what its numbers depend on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from invattn._errors import DataError
from invattn._files import read_json, write_json
from invattn.experiments.density.config import DensityConfig
from invattn.experiments.density.data import DensityData
from invattn.experiments.density.record import DensityResult
from invattn.experiments.kit.run import source_hash
from invattn.hub import FlowConfig
from invattn.hub.certificate import hash_json


@dataclass(frozen=True)
class DensityCell:
    """A training of one variant and its evaluation.

    Attributes:
        config: The user's options.
        data: What it learns from.
        attention: What stands between the tokens.
        recipe: Form of the attention.
        repeat: Number of the repeat, from 0.
    """

    config: DensityConfig
    data: DensityData
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
    def model_config(self) -> FlowConfig:
        """What the flow is built from."""
        return self.config.model_config(self.attention, self.recipe)

    @property
    def key(self) -> str:
        """Hash of everything that the numbers depend on."""
        settings = self.config.settings(of_a_cell=True)
        own = {"model": self.model_config.to_json(), "repeat": self.repeat, "code": source_hash()}
        return hash_json(settings | own | dict(self.data.key) | {"torch": torch.__version__})

    def file(self, kind: str) -> Path:
        """Return the path of ``<name>.<kind>`` among the cells."""
        return self.config.output / "cells" / f"{self.name}.{kind}"

    def finish(self, result: DensityResult) -> None:
        """Write the numbers; their file says that the cell is done. A training that stopped early leaves its state.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(self.file("json"), {"key": self.key, "result": result.to_json()})
        if result.extra.get("stopped_at") is None:
            self.file("ckpt").unlink(missing_ok=True)

    def finished(self) -> DensityResult | None:
        """Return the kept numbers, or None if the cell is not finished.

        Raises:
            DataError: If they are of other options, code or version.
        """
        if not self.file("json").exists():
            return None
        content = read_json(self.file("json"))
        if not isinstance(content, dict) or content.get("key") != self.key:
            raise DataError(
                f"{self.file('json').parent} holds results of other options, data or code. Choose another --output, "
                "or delete that folder."
            )
        return DensityResult.from_json(content.get("result"))
