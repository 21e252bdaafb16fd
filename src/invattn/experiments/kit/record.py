"""The figures of the paper's tables."""

from __future__ import annotations

import csv
import math
from importlib import resources
from typing import Any

from invattn._errors import DataError

SCHEMA_VERSION = 1
"""Version of the layout of every ``results.json``."""


class Reader:
    """Checked access to the keys of a JSON object."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise DataError(f"{what} must be a JSON object; got {type(value).__name__}. Run the experiment again.")
        self._value = value
        self._what = what

    def get(self, key: str, *kinds: type, default: Any = ...) -> Any:
        """Return the value of ``key``, which must be of one of ``kinds``; a bool is not an int here."""
        value = self._value.get(key, default)
        if value is ...:
            raise DataError(f"{self._what} lacks the key {key!r}. Run the experiment again to rewrite it.")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise DataError(f"{key!r} of {self._what} must be {names}; got {value!r:.60}. Run the experiment again.")
        return value

    def number(self, key: str) -> Any:
        """Return a number; null becomes nan."""
        value = self.get(key, int, float, type(None))
        return math.nan if value is None else value

    def numbers(self, key: str) -> list[float]:
        """Return a list of numbers, empty where the key is missing; null becomes nan."""
        return [number_or_nan(value) for value in self.get(key, list, default=[])]

    def others(self, known: set[str]) -> dict[str, Any]:
        """Return every key that is not known."""
        return {key: value for key, value in self._value.items() if key not in known}


def number_or_nan(value: Any) -> float:
    """Return a number; null becomes nan.

    Raises:
        DataError: If the value is neither.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"a number was expected in results.json; got {value!r:.60}. Run the experiment again.")
    return float(value)


def published_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of published figures.

    Args:
        name: ``table2``, ``table3``, ``table4`` or ``table5``; the number is the paper's.
    """
    text = resources.files("invattn.experiments.kit").joinpath("published", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def published_reconstruction(dataset: str, image_size: int | str) -> dict[str, dict[str, float] | None]:
    """Return the paper's reconstruction figures for a data set: Table 2 for 32x32 images, Table 5 for 218x178 ones.

    Args:
        dataset: ``cifar10``, ``svhn`` or ``celeba``; the paper has no figures for any other.
        image_size: 32, "32" or "32x32"; "original" or "218x178".

    Returns:
        Attention kind -> ``{"mse", "ssim", "v_score"}``, or None where nothing was published (every kind of another
        data set, and ``pointwise``, which is no kind of the paper). MSE is on the 0-255 scale, ``v_score`` in 0..1.
    """
    small, large = published_rows("table2"), published_rows("table5")
    table = {"32": small, "32x32": small, "original": large, "218x178": large}.get(str(image_size), [])
    found: dict[str, dict[str, float] | None] = {row["attention"]: None for row in small}
    found["pointwise"] = None
    for row in table:
        if row["dataset"] == dataset:
            found[row["attention"]] = {key: float(row[key]) for key in ("mse", "ssim", "v_score")}
    return found


def published_detection(attention: str, recipe: str, dataset: str) -> dict[str, float] | None:
    """Return the paper's figures of Table 4 for one network and test set.

    Args:
        attention: Kind of the attention; ``none`` is the row "Base".
        recipe: ``paper`` for the rows "Inv-", ``unconstrained`` for the others; nothing was published for any other.
        dataset: CAMO, CHAMELEON, COD10K or NC4K.

    Returns:
        ``{"s_measure", "f_mean", "e_mean", "mae"}``, or None where nothing was published.
    """
    for row in published_rows("table4"):
        if (row["attention"], row["recipe"], row["dataset"]) == (attention, recipe, dataset):
            return {key: float(row[key]) for key in ("s_measure", "f_mean", "e_mean", "mae")}
    return None
