"""What a stored network of the camouflage experiment is built from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from invattn._errors import DataError
from invattn.checkpoints.objects import describe, restore_recipe
from invattn.checkpoints.stored_config import StoredConfig
from invattn.models import CamouflageArchitecture, CamouflageNetwork


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(CamouflageArchitecture, StoredConfig):
    """A network that finds camouflaged objects; see :class:`invattn.models.CamouflageArchitecture`.

    Attributes:
        image_size: Side in pixels to which images are resized for it.
    """

    model: ClassVar[str] = "camouflage_network"

    image_size: int = 352

    def build(self) -> CamouflageNetwork:
        return self.network()

    def to_json(self) -> dict[str, Any]:
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {"model": self.model} | plain | {"recipe": None if self.recipe is None else describe(self.recipe)}

    @classmethod
    def from_json(cls, value: Any) -> NetworkConfig:
        """Rebuild a configuration.

        Raises:
            DataError: If keys are missing or unknown, or name what this version does not have.
        """
        known = {"model", *(entry.name for entry in fields(cls))}
        if not isinstance(value, dict) or set(value) != known:
            raise DataError(f"config.json must hold exactly these keys: {', '.join(sorted(known))}.")
        plain = {name: part for name, part in value.items() if name not in ("model", "recipe")}
        recipe = None if value["recipe"] is None else restore_recipe(value["recipe"])
        try:
            return cls(**plain, recipe=recipe)
        except (TypeError, ValueError) as error:
            raise DataError(f"config.json cannot be built: {error}") from None
