"""The arrays that a run stored for its figures, read one at a time and checked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from invattn.experiments.kit.page import formatting

Array = NDArray[Any]
T = TypeVar("T")

_DIMENSIONS = {
    name: dimensions
    for dimensions, names in {
        1: (
            "image_mse image_index all_mse residual_steps residual_median residual_max curve_c curve_steps "
            "losses nats conditional_arrived conditional_reach sample_temperatures block_kinds block_log_det "
            "block_size block_change block_change_error field_names field_place plane_reach threshold_sets "
            "map_sets"
        ),
        2: (
            "curve_error attention_query conditional_points sample_failed nearest_distance plane_points "
            "plane_samples plane_density threshold_f threshold_e"
        ),
        3: "errors attention_image attention_maps real_sets sampled_sets conditional field_maps",
        4: "originals reconstructions real_images nearest_samples",
        5: "sample_images walk_images nearest_images map_pictures",
    }.items()
    for name in names.split()
}
# What numpy and zipfile raise for a file that is cut, altered, pickled or no archive at all (a bare array is none).
_DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
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
    """The arrays that a run stored in its folder of one attention kind in one recipe."""

    def __init__(self, folder: Path, *, attention: str, recipe: str) -> None:
        self.attention = attention
        self.recipe = recipe
        self._path = folder / "artifacts" / f"{Path(attention).name}-{Path(recipe).name}.npz"

    @property
    def label(self) -> str:
        """The reader's name of the pair."""
        kind, recipe = formatting.kind(self.attention), formatting.recipe(self.recipe).lower()
        return f"{kind.removesuffix(')')}, {recipe})" if kind.endswith(")") else f"{kind} ({recipe})"

    def take(self, *names: str) -> list[Array]:
        """Return the named arrays; MissingPartError if one is absent, empty, unreadable or of the wrong shape."""
        stored = stored_arrays(self._path, names, what="arrays for figures")
        return [self._checked(stored, name) for name in names]

    def holds(self, name: str) -> bool:
        """Whether an array of this name can be taken."""
        try:
            self.take(name)
        except MissingPartError:
            return False
        return True

    def _checked(self, stored: Mapping[str, Array], name: str) -> Array:
        if name not in stored:
            raise MissingPartError(_ABSENT.get(name.split("_")[0], f"the run stored no array {name!r}"))
        value = stored[name]
        wanted = np.uint8 if name in _PICTURES else None
        kinds = "U" if name in _WORDS else "uif"
        if value.ndim != _DIMENSIONS[name] or value.dtype.kind not in kinds or (wanted and value.dtype != wanted):
            raise MissingPartError(f"the stored array {name!r} has an unexpected shape or type")
        if value.size == 0:
            raise MissingPartError(f"the stored array {name!r} is empty")
        if name in _PICTURES and value.shape[-1] != 3:
            raise MissingPartError(f"the stored array {name!r} is not a colour image")
        return value


def stored_arrays(path: Path, names: Iterable[str], *, what: str) -> dict[str, Array]:
    """Return those of the named arrays that a file holds; MissingPartError if there is none or it is damaged."""
    try:
        # Opened here: numpy leaves the file open if it turns out to be damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {name: stored[name] for name in names if name in stored.files}
    except FileNotFoundError:
        raise MissingPartError(f"the run stored no {what}") from None
    except _DAMAGE:
        raise MissingPartError(f"the stored file {path.name} is damaged") from None


def same_length(*arrays: Array) -> None:
    """Raise MissingPartError unless arrays which belong together have one length."""
    if len({len(array) for array in arrays}) != 1:
        raise MissingPartError("the stored arrays do not fit together")


def collect(
    artifacts: Iterable[Artifact], build: Callable[[Artifact], T]
) -> tuple[list[tuple[Artifact, T]], tuple[str, ...]]:
    """Build something from every artifact, and say in one sentence for each reason what had to be left out."""
    built: list[tuple[Artifact, T]] = []
    missing: dict[str, list[str]] = {}
    for artifact in artifacts:
        try:
            built.append((artifact, build(artifact)))
        except MissingPartError as reason:
            missing.setdefault(str(reason), []).append(artifact.label)
    return built, tuple(f"Left out: {', '.join(names)}, because {reason}." for reason, names in missing.items())
