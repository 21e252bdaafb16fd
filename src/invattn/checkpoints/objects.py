"""Recipe and solver objects as names and fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from invattn import recipes, solvers
from invattn._errors import DataError
from invattn._names import check_name
from invattn.recipes import Recipe
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
