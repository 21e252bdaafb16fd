"""What a stored model is built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

from torch import nn

from invattn import recipes, solvers
from invattn._errors import DataError, check_name
from invattn.bijections import Bijection, Composed, Squeeze
from invattn.recipes import Recipe, invertible_attention
from invattn.solvers import Solver


def describe(value: Recipe | Solver) -> dict[str, Any]:
    """Return ``{"class", "fields"}`` of a recipe or solver.

    Raises:
        TypeError: If it is not a dataclass of this library.
    """
    kind = type(value)
    known = _classes(recipes, Recipe) | _classes(solvers, Solver)
    if known.get(kind.__name__) is not kind:
        raise TypeError(f"only recipes and solvers of invattn can be stored; got {kind.__name__}.")
    names = [field.name for field in fields(cast(Any, kind))]
    return {"class": kind.__name__, "fields": {name: getattr(value, name) for name in names}}


def restore_recipe(description: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe.

    Raises:
        DataError: If the description names no recipe, or fields that it does not have.
    """
    recipe: Recipe = _restore(description, _classes(recipes, Recipe), what="recipe")
    return recipe


def restore_solver(description: Mapping[str, Any]) -> Solver:
    """Rebuild a solver.

    Raises:
        DataError: If the description names no solver, or fields that it does not have.
    """
    solver: Solver = _restore(description, _classes(solvers, Solver), what="solver")
    return solver


def _classes(module: Any, base: type) -> dict[str, type]:
    """Return every public final class of a package by name."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return {name: value for name, value in found.items() if issubclass(value, base) and value is not base}


def _restore(description: Mapping[str, Any], known: Mapping[str, type], *, what: str) -> Any:
    try:
        kind = known[check_name(description["class"], list(known), what=what)]
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in description["fields"].items()}
        return kind(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the stored {what} cannot be rebuilt: {error}. Use the version of invattn that wrote it."
        ) from None


class StoredConfig(ABC):
    """The configuration of a model: plain values from which the same architecture is built again."""

    model: ClassVar[str]

    @classmethod
    @abstractmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild a configuration from plain values.

        Raises:
            DataError: If keys are missing or unknown, or name what this version does not have.
        """

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new model with fresh weights, drawn from torch's default generator."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain values."""


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
