"""Checked access to the content of a stored record."""

from __future__ import annotations

import math
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
