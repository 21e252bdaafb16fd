"""What a user decides about the density experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from invattn import RECIPES
from invattn._names import check_name
from invattn.checkpoints import FlowConfig
from invattn.data import grey_levels
from invattn.experiments.density_data_options import DATASETS as DATASETS
from invattn.experiments.density_data_options import DataOptions
from invattn.experiments.density_flows import CONTROLS, MIXERS, flow_config
from invattn.experiments.density_model_options import ModelOptions, format_numbers
from invattn.experiments.density_presets import preset
from invattn.experiments.density_training_options import TrainingOptions

_NO_INFLUENCE = ("output", "data_root", "resume", "checkpoint_minutes", "max_minutes", "log_every", "epochs")
"""Options on which no number depends, or (epochs) that have become steps."""

_ONLY_IMAGES = {entry.name for entry in fields(ModelOptions)} - {
    *("attention", "recipe", "blocks", "attention_layers", "hidden_channels", "lipschitz", "terms")
} | {"image_size", "train_size", "flips"}


@dataclass(frozen=True, kw_only=True)
class DensityConfig(DataOptions, ModelOptions, TrainingOptions):
    """Options of ``invattn density train``; :func:`density_config` fills in those recommended for a data set.

    Attributes:
        output: Folder for the results.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or the images do not fit the scales.
    """

    output: Path

    def __post_init__(self) -> None:
        self.check_data()
        self.check_model()
        self.check_training()
        if self.dequantisation != "uniform" and self.family != "images":
            raise ValueError(
                f"{self.dequantisation} dequantisation is for images: the points of {self.data} are no whole values. "
                "Leave --dequantisation out."
            )
        for pair in self.variants():
            self.model_config(*pair)

    def variants(self) -> tuple[tuple[str, str], ...]:
        """Return (attention, recipe) of every row of the table, each once."""
        kinds = _names(self.attention, MIXERS[self.family], what="attention of a flow")
        recipes = _names(self.recipe, RECIPES, what="recipe")
        pairs = [(kind, "certified" if kind in CONTROLS else form) for form in recipes for kind in kinds]
        return tuple(dict.fromkeys(pairs))

    def model_config(self, attention: str, recipe: str) -> FlowConfig:
        """Return what the flow of a variant is built from."""
        levels = grey_levels(self.data) if self.family == "images" else 0
        return flow_config(self.family, self.event_shape, self, attention=attention, recipe=recipe, levels=levels)

    def settings(self) -> dict[str, Any]:
        """Return every option that may change the numbers, as run; no paths."""
        foreign = {"images": {"attention_layers"}, "plane": _ONLY_IMAGES - {"activation"} | {"attention_layers"}}
        unused = set(_NO_INFLUENCE) | foreign.get(self.family, _ONLY_IMAGES)
        return {name: _plain(value) for name, value in vars(self).items() if name not in unused}

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.settings().items())
        root = "" if self.data_root is None else " --data-root DATA"
        return f"invattn density train {options}{root} --output OUT"


def density_config(given: Mapping[str, Any]) -> DensityConfig:
    """Return the options of a run: those given, and for all others the ones recommended for the data set.

    Args:
        given: Option name -> value, ``output`` at least.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or both steps and epochs are given.
    """
    if "steps" in given and "epochs" in given:
        raise ValueError("steps and epochs were both given: give one of them.")
    return DensityConfig(**{**preset(given.get("data", "sets")), **given})


def _plain(value: Any) -> Any:
    return format_numbers(value) if isinstance(value, tuple) else value


def _names(text: str, known: tuple[str, ...], *, what: str) -> tuple[str, ...]:
    names: list[str] = []
    for part in text.split(","):
        name = check_name(part.strip(), (*known, "all"), what=what)
        names.extend(known if name == "all" else [name])
    return tuple(dict.fromkeys(names))
