"""What a stored model is built from, and how it is written to ``config.json`` and read again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

from torch import nn

from invattn import recipes, solvers
from invattn._errors import DataError, check_name
from invattn.bijections import Bijection, Block, Composed, Squeeze
from invattn.recipes import Recipe, invertible_attention
from invattn.solvers import Solver

_OBJECTS = {"recipe": (recipes, Recipe), "solver": (solvers, Solver)}
"""Fields that hold an object: where its classes are, and their base."""


def describe(value: Recipe | Solver) -> dict[str, Any]:
    """Return ``{"class", "fields"}`` of a recipe or solver.

    Raises:
        TypeError: If it is not a dataclass of this library.
    """
    kind = type(value)
    if not any(_classes(what).get(kind.__name__) is kind for what in _OBJECTS):
        raise TypeError(f"only recipes and solvers of invattn can be stored; got {kind.__name__}.")
    names = [field.name for field in fields(cast(Any, kind))]
    return {"class": kind.__name__, "fields": {name: getattr(value, name) for name in names}}


def restore(description: Mapping[str, Any], *, what: str) -> Any:
    """Rebuild what ``describe`` described.

    Args:
        description: The class and its fields.
        what: ``recipe`` or ``solver``.

    Raises:
        DataError: If the description names no such class, or fields that it does not have.
    """
    known = _classes(what)
    try:
        kind = known[check_name(description["class"], list(known), what=what)]
        return kind(**{name: _tuples(part) for name, part in description["fields"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the stored {what} cannot be rebuilt: {error}. Use the version of invattn that wrote it."
        ) from None


def _classes(what: str) -> dict[str, type]:
    """Return every public final class of recipes or solvers by name."""
    module, base = _OBJECTS[what]
    found = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return {name: value for name, value in found.items() if issubclass(value, base) and value is not base}


def _tuples(value: Any) -> Any:
    """Turn lists, also those in lists, back into the tuples that they were."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


class StoredConfig(ABC):
    """The configuration of a model: a frozen dataclass from which the same architecture is built again.

    Its fields are plain values, but for ``recipe`` and ``solver``, which are written by name and fields.

    Attributes:
        model: Name of the family, kept in the file; None for a single block, whose file names none.
        left_out: Fields that say how a model is used and not what it is; never in the file.
        added: Fields that older files do not have; in the file where they are not the default.
    """

    model: ClassVar[str | None]
    left_out: ClassVar[tuple[str, ...]] = ()
    added: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new model with fresh weights, drawn from torch's default generator."""

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        plain: dict[str, Any] = {} if self.model is None else {"model": self.model}
        for name, default in self._stored().items():
            value = getattr(self, name)
            if name not in self.added or value != default:
                plain[name] = describe(value) if isinstance(value, Recipe | Solver) else value
        return plain

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild a configuration from plain values.

        Raises:
            DataError: If keys are missing or unknown, or name what this version does not have.
        """
        known = {*cls._stored(), *(() if cls.model is None else ("model",))}
        needed = known - set(cls.added)
        if not isinstance(value, dict) or not needed <= set(value) <= known or value.get("model") != cls.model:
            raise DataError(f"config.json must hold exactly these keys: {', '.join(sorted(needed))}.")
        plain = {name: _tuples(part) for name, part in value.items() if name != "model"}
        plain |= {what: restore(plain[what], what=what) for what in _OBJECTS if plain.get(what) is not None}
        try:
            return cls(**plain)
        except (TypeError, ValueError) as error:
            raise DataError(f"config.json cannot be built: {error}") from None

    @classmethod
    def _stored(cls) -> dict[str, Any]:
        """Return the name of each stored field with its default."""
        return {entry.name: entry.default for entry in fields(cast(Any, cls)) if entry.name not in cls.left_out}


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

    model: ClassVar[str | None] = None

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
        options = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "squeeze"}
        block = invertible_attention(**options)
        return block if self.squeeze == 1 else Composed([Squeeze(self.squeeze), block])

    def block_of(self, model: Bijection) -> Block:
        """Return the attention block of a model that ``build`` made."""
        return cast(Block, model if self.squeeze == 1 else cast(Composed, model).bijections[-1])
