"""What every stored model can say of how it is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn


class StoredConfig(ABC):
    """The configuration of a model: plain values from which the same architecture is built again."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new model with fresh weights, drawn from torch's default generator."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
