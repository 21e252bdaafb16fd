"""What every stored flow can say of how it is built."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import fields
from typing import Any, ClassVar, Self, cast

from invattn._errors import DataError
from invattn.bijections import Composed
from invattn.checkpoints.objects import describe, restore_recipe, restore_solver
from invattn.checkpoints.stored_config import StoredConfig
from invattn.flows import Flow
from invattn.logdet import LogDetEstimator
from invattn.recipes import Recipe
from invattn.solvers import Solver


class FlowConfig(StoredConfig):
    """The configuration of a flow, a frozen dataclass with ``solver``, plain values, and perhaps ``recipe``.

    Attributes:
        model: Name of the family, kept in the file.
        solver: How residual blocks are inverted; None is the default.
    """

    model: ClassVar[str]
    solver: Solver | None

    def build(self) -> Composed:
        return self.build_with(None)

    @abstractmethod
    def build_with(self, log_det_estimator: LogDetEstimator | None) -> Composed:
        """Return a new model as ``build`` does, whose blocks use this estimator of the log-determinant."""

    @abstractmethod
    def distribution(self, bijection: Composed) -> Flow:
        """Return the distribution that the bijection and the base make."""

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    def to_json(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self._names()}
        plain = {name: describe(part) if isinstance(part, Recipe | Solver) else part for name, part in own.items()}
        return {"model": self.model} | plain

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild a configuration.

        Raises:
            DataError: If keys are missing or unknown, or name what this version does not have.
        """
        known = {"model", *cls._names()}
        if not isinstance(value, dict) or set(value) != known or value["model"] != cls.model:
            raise DataError(f"config.json must hold exactly these keys: {', '.join(sorted(known))}.")
        plain = {name: _tuples(part) for name, part in value.items() if name != "model"}
        if "recipe" in known:
            plain["recipe"] = restore_recipe(value["recipe"])
        plain["solver"] = None if value["solver"] is None else restore_solver(value["solver"])
        try:
            return cls(**plain)
        except (TypeError, ValueError) as error:
            raise DataError(f"config.json cannot be built: {error}") from None

    @classmethod
    def _names(cls) -> list[str]:
        return [entry.name for entry in fields(cast(Any, cls))]


def _tuples(value: Any) -> Any:
    """Turn lists, also those in lists, back into the tuples that they were."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
