"""What a user decides about the density experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from invattn import RECIPES
from invattn._errors import check_name
from invattn.experiments.density.flows import CONTROLS, MIXERS, ModelOptions, flow_config, format_numbers
from invattn.experiments.density.images import DENSITY_IMAGES, grey_levels
from invattn.experiments.density.points import DIMENSIONS, PLANE, POINTS
from invattn.experiments.kit.training.optimisation import TrainingOptions
from invattn.hub import FlowConfig

DATASETS = ("sets", *PLANE, *DENSITY_IMAGES)
"""Names of data sets; a folder of images is valid too."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data.

    Attributes:
        data: ``sets`` (generated sets of 32 points in the plane), ``two-moons``, ``8-gaussians`` or ``checkerboard``
            (generated points), ``digits``, ``photos``, ``cifar10``, ``svhn``, ``celeba``, or a folder of images.
        data_root: Where cifar10, svhn or celeba lie as published; None downloads them.
        image_size: Side of the images in pixels.
        train_size: Number of training images wanted; generated samples are new at every step.
        test_size: Number of test samples.
        flips: Whether training images are mirrored at random.
    """

    data: str = "sets"
    data_root: Path | None = None
    image_size: int = 32
    train_size: int = 50_000
    test_size: int = 500
    flips: bool = False

    @property
    def family(self) -> str:
        """``sets``, ``plane`` or ``images``: which kind of flow the data need."""
        if self.data == "sets":
            return "sets"
        return "plane" if self.data in PLANE else "images"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        if self.family == "sets":
            return (POINTS, DIMENSIONS)
        if self.family == "plane":
            return (DIMENSIONS,)
        return (1 if self.data == "digits" else 3, self.image_size, self.image_size)

    def check_data(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: If a name is unknown or a number is out of range.
        """
        if not is_folder(self.data):
            check_name(self.data, DATASETS, what="data set of the density experiment")
        if self.train_size < 1 or self.image_size < 2:
            raise ValueError(
                f"train_size must be at least 1 and image_size at least 2; got {self.train_size} and {self.image_size}."
            )
        if self.test_size < 2:
            raise ValueError(f"test_size must be at least 2; got {self.test_size}.")


def is_folder(name: str) -> bool:
    """Whether a name is no data set but an existing folder."""
    return name not in DATASETS and name != "" and Path(name).is_dir()


_PLANE = {"attention": "none", "blocks": (16,), "hidden_channels": 64, "batch_size": 256, "steps": 1000, "lr": 0.005}

_IMAGES = {
    "attention": "embedded_gaussian,pointwise,none",
    "attention_positions": "interleaved:1",
    "self_logit": 6.0,
    "lipschitz": 0.98,
    "flips": True,
    "blocks": (2, 2),
    "hidden_channels": 32,
    "channel_knots": 8,
    "batch_size": 32,
    "lr": 0.02,
}
_WHOLE = {"whitening_ridge": 2e-6, "whitening_reach": 8.0, "knots": 16}
"""For whitening of whole images: far entries have few samples to tell how they vary together."""

_DIGITS = {
    "image_size": 8,
    "train_size": 1500,
    "test_size": 297,
    "flips": False,
    "attention": "none",
    "attention_positions": "0:-1",
    "histogram": True,
    "whitening": 8,
    "whitening_ridge": 0.01,
    "first_squeeze": 8,
    "blocks": (6,),
    "kernel_sizes": (1, 1, 1),
    "hidden_channels": 128,
    "channel_knots": 0,
    "batch_size": 128,
    "steps": 250,
    "lr": 0.01,
}
"""Squeezed to one pixel, a digit is a vector of 64 channels and a 1 x 1 convolution a matrix of all of it."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sets": {},
    "two-moons": _PLANE,
    "8-gaussians": _PLANE,
    "checkerboard": _PLANE,
    "digits": _IMAGES | _DIGITS,
    "celeba": _IMAGES | _WHOLE | {"image_size": 16, "train_size": 7000, "whitening": 16, "steps": 300},
    "cifar10": _IMAGES | _WHOLE | {"whitening": 32, "steps": 600},
    "svhn": _IMAGES | {"whitening": 4, "steps": 1000, "flips": False},
    "photos": _IMAGES | {"train_size": 2000, "whitening": 4, "steps": 500},
}
"""Data set -> option -> value; options that are not named have the defaults of the configuration."""

_FOLDER = _IMAGES | {"whitening": 4, "steps": 1000}


def preset(data: str) -> dict[str, Any]:
    """Return the recommended options of a data set; an unknown name is taken for a folder of images."""
    return dict(PRESETS.get(data, _FOLDER))


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
