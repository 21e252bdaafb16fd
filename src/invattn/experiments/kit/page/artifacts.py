"""The arrays that a run stored for its figures, read one at a time and checked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from invattn.experiments.kit.page import formatting as labels

Array = NDArray[Any]
T = TypeVar("T")

_DIMENSIONS = {
    "originals": 4,
    "reconstructions": 4,
    "errors": 3,
    "image_mse": 1,
    "image_index": 1,
    "all_mse": 1,
    "residual_steps": 1,
    "residual_median": 1,
    "residual_max": 1,
    "curve_c": 1,
    "curve_steps": 1,
    "curve_error": 2,
    "attention_image": 3,
    "attention_query": 2,
    "attention_maps": 3,
    "losses": 1,
    "nats": 1,
    "real_sets": 3,
    "sampled_sets": 3,
    "conditional": 3,
    "conditional_points": 2,
    "conditional_arrived": 1,
    "conditional_reach": 1,
    "real_images": 4,
    "sample_temperatures": 1,
    "sample_images": 5,
    "sample_failed": 2,
    "walk_images": 5,
    "nearest_samples": 4,
    "nearest_images": 5,
    "nearest_distance": 2,
    "block_kinds": 1,
    "block_log_det": 1,
    "block_size": 1,
    "block_change": 1,
    "block_change_error": 1,
    "field_names": 1,
    "field_maps": 3,
    "field_place": 1,
    "plane_points": 2,
    "plane_samples": 2,
    "plane_density": 2,
    "plane_reach": 1,
    "threshold_sets": 1,
    "threshold_f": 2,
    "threshold_e": 2,
    "map_sets": 1,
    "map_pictures": 5,
}
# What numpy and zipfile raise for a file that is cut, altered, pickled or no archive at all (a bare array is none).
DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_PICTURES = (
    *("originals", "reconstructions", "attention_image"),
    *("real_images", "sample_images", "walk_images", "nearest_samples", "nearest_images"),
    "map_pictures",
)
_WORDS = ("block_kinds", "field_names", "threshold_sets", "map_sets")


_ABSENT = {
    "curve": "the run stored no curves for several c (without a constraint there is no c)",
    "attention": "the run stored no attention maps (large images and the pointwise control have none)",
    "field": "the run stored no receptive fields (a grid of a single place has none)",
    "block": "the run stored no figures of single blocks (they would take long for large flows)",
}


class MissingPartError(Exception):
    """A figure cannot be drawn; the message says why, in words for the reader of the page."""


class Artifact:
    """The stored arrays of one attention kind in one recipe.

    Args:
        folder: The run's folder.
        attention: Name of the attention kind.
        recipe: Name of the recipe.
    """

    def __init__(self, folder: Path, *, attention: str, recipe: str) -> None:
        self.attention = attention
        self.recipe = recipe
        self._path = folder / "artifacts" / f"{Path(attention).name}-{Path(recipe).name}.npz"

    @property
    def label(self) -> str:
        """The reader's name of the pair."""
        kind, recipe = labels.kind(self.attention), labels.recipe(self.recipe).lower()
        return f"{kind.removesuffix(')')}, {recipe})" if kind.endswith(")") else f"{kind} ({recipe})"

    def take(self, *names: str) -> list[Array]:
        """Return the named arrays.

        Raises:
            MissingPartError: If one is absent, empty, unreadable or of the wrong shape.
        """
        try:
            # Opened here: numpy leaves the file open if it turns out to be damaged.
            with self._path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return [self._checked(stored, name) for name in names]
        except FileNotFoundError:
            raise MissingPartError("the run stored no arrays for figures") from None
        except DAMAGE:
            raise MissingPartError(f"the stored file {self._path.name} is damaged") from None

    def holds(self, name: str) -> bool:
        """Whether an array of this name can be taken."""
        try:
            self.take(name)
        except MissingPartError:
            return False
        return True

    def _checked(self, stored: Any, name: str) -> Array:
        if name not in stored.files:
            raise MissingPartError(_ABSENT.get(name.split("_")[0], f"the run stored no array {name!r}"))
        value: Array = stored[name]
        wanted = np.uint8 if name in _PICTURES else None
        kinds = "U" if name in _WORDS else "uif"
        if value.ndim != _DIMENSIONS[name] or value.dtype.kind not in kinds or (wanted and value.dtype != wanted):
            raise MissingPartError(f"the stored array {name!r} has an unexpected shape or type")
        if value.size == 0:
            raise MissingPartError(f"the stored array {name!r} is empty")
        if name in _PICTURES and value.shape[-1] != 3:
            raise MissingPartError(f"the stored array {name!r} is not a colour image")
        return value


def same_length(*arrays: Array) -> None:
    """Check that arrays which belong together have one length.

    Raises:
        MissingPartError: If they differ.
    """
    if len({len(array) for array in arrays}) != 1:
        raise MissingPartError("the stored arrays do not fit together")


def collect(
    artifacts: Iterable[Artifact], build: Callable[[Artifact], T]
) -> tuple[list[tuple[Artifact, T]], list[str]]:
    """Build something from every artifact, and say in sentences what had to be left out.

    Returns:
        The pairs (artifact, what was built), and one sentence for each reason for which some were left out.
    """
    built: list[tuple[Artifact, T]] = []
    missing: dict[str, list[str]] = {}
    for artifact in artifacts:
        try:
            built.append((artifact, build(artifact)))
        except MissingPartError as reason:
            missing.setdefault(str(reason), []).append(artifact.label)
    return built, [f"Left out: {', '.join(names)}, because {reason}." for reason, names in missing.items()]
