"""What a stored model is built from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, cast

from invattn._errors import DataError
from invattn.bijections import Bijection, Composed, Squeeze
from invattn.checkpoints.objects import describe, restore_recipe, restore_solver
from invattn.checkpoints.stored_config import StoredConfig
from invattn.recipes import Recipe, invertible_attention
from invattn.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class ModelConfig(StoredConfig):
    """An attention block, after a squeeze if ``squeeze`` is above 1.

    Attributes:
        channels: Channels that the block sees, after the squeeze.
        kind: Kind of the attention.
        recipe: Form of the block.
        lipschitz: c, the bound of a certified block.
        key_channels: Channels of queries and keys; None is ``channels // 4``.
        num_heads: Number of heads.
        layout: ``image`` or ``tokens``.
        solver: How the block is inverted; None is the default.
        squeeze: Side of the patches that become channels; 1 for none.
    """

    channels: int
    kind: str
    recipe: Recipe
    lipschitz: float = 0.9
    key_channels: int | None = None
    num_heads: int = 1
    layout: str = "image"
    solver: Solver | None = None
    squeeze: int = 1

    def build(self) -> Bijection:
        block = invertible_attention(
            self.channels,
            kind=self.kind,
            recipe=self.recipe,
            lipschitz=self.lipschitz,
            key_channels=self.key_channels,
            num_heads=self.num_heads,
            layout=self.layout,
            solver=self.solver,
        )
        return block if self.squeeze == 1 else Composed([Squeeze(self.squeeze), block])

    def block_of(self, model: Bijection) -> Bijection:
        """Return the attention block of a model that ``build`` made."""
        return model if self.squeeze == 1 else cast(Bijection, cast(Composed, model).bijections[-1])

    def to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        solver = None if self.solver is None else describe(self.solver)
        return plain | {"recipe": describe(self.recipe), "solver": solver}

    @classmethod
    def from_json(cls, value: Any) -> ModelConfig:
        """Rebuild a configuration.

        Raises:
            DataError: If keys are missing or unknown, or name what this version does not have.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != known:
            raise DataError(f"config.json must hold exactly these keys: {', '.join(sorted(known))}.")
        solver = None if value["solver"] is None else restore_solver(value["solver"])
        return cls(**{**value, "recipe": restore_recipe(value["recipe"]), "solver": solver})
