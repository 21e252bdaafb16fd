"""What a user decides about the density experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from invattn import RECIPES
from invattn._errors import DataError
from invattn.experiments.density.flows import (
    CONTROLS,
    MIXERS,
    ImageFlowOptions,
    ModelOptions,
    flow_config,
    parse_positions,
)
from invattn.experiments.density.images import DENSITY_IMAGES, grey_levels
from invattn.experiments.density.points import DIMENSIONS, PLANE, POINTS
from invattn.experiments.kit.options import (
    Count,
    Mark,
    ModelFolder,
    Options,
    OutputOptions,
    Switch,
    command_line,
    list_of,
    name_or_folder,
    number_between,
    split_names,
    whole_number,
)
from invattn.experiments.kit.training.optimisation import TrainingOptions
from invattn.hub import FlowConfig

DATASETS = ("sets", *PLANE, *DENSITY_IMAGES)
"""Names of data sets; a folder of images is valid too."""

_DATA = name_or_folder(DATASETS, what="data set")


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Data.

    Attributes:
        data: sets (of points around random centres), two-moons, 8-gaussians, checkerboard, digits, photos, cifar10,
            svhn, celeba, or a folder of images.
        data_root: Where cifar10, svhn or celeba lie as published; without it: download.
        image_size: Side of the images in pixels.
        train_size: Training images; generated samples are new at every step.
        test_size: Test samples.
        flips: Mirror training images at random.
    """

    data: Annotated[str, _DATA] = "sets"
    data_root: Annotated[Path | None, Mark.UNSTORED] = None
    image_size: Annotated[int, whole_number(2)] = 32
    train_size: Count = 50_000
    test_size: Annotated[int, whole_number(2)] = 500
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


_ONLY_IMAGES = {entry.name for entry in fields(ImageFlowOptions)} | {"image_size", "train_size", "flips"}
_FOREIGN = {
    "images": {"attention_layers"},
    "plane": _ONLY_IMAGES - {"activation"} | {"attention_layers"},
    "sets": _ONLY_IMAGES,
}
"""Family of data -> options that its flows do not have."""


@dataclass(frozen=True, kw_only=True)
class DensityConfig(DataOptions, ModelOptions, TrainingOptions, OutputOptions):
    """Options of ``invattn density train``; :func:`density_config` fills in those recommended for a data set.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or the images do not fit the scales.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_positions(self.attention_positions)
        if self.dequantisation != "uniform" and self.family != "images":
            raise ValueError(
                f"{self.dequantisation} dequantisation is for images: the points of {self.data} are no whole values. "
                "Leave --dequantisation out."
            )
        for pair in self.variants():
            self.model_config(*pair)

    def variants(self) -> tuple[tuple[str, str], ...]:
        """Return (attention, recipe) of every row of the table, each once."""
        mixers = MIXERS[self.family]
        kinds = split_names(self.attention, mixers, everything=mixers, what="attention of a flow")
        recipes = split_names(self.recipe, RECIPES, everything=RECIPES, what="recipe")
        pairs = [(kind, "certified" if kind in CONTROLS else form) for form in recipes for kind in kinds]
        return tuple(dict.fromkeys(pairs))

    def model_config(self, attention: str, recipe: str) -> FlowConfig:
        """Return what the flow of a variant is built from."""
        levels = grey_levels(self.data) if self.family == "images" else 0
        return flow_config(self.family, self.event_shape, self, attention=attention, recipe=recipe, levels=levels)

    def settings(self, *, of_a_cell: bool = False) -> dict[str, Any]:
        """Return every option that may change the numbers of this family of data; no paths."""
        plain = super().settings(of_a_cell=of_a_cell)
        return {name: value for name, value in plain.items() if name not in _FOREIGN[self.family]}

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        return command_line("density train", self.settings() | {"data_root": self.data_root and "DATA"})


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


_LARGEST_TEMPERATURE = 10.0


@dataclass(frozen=True, kw_only=True)
class StoredFlowOptions:
    """A stored flow.

    Attributes:
        model: A model folder: OUTPUT/model/VARIANT of a run.
        data: Other data than the flow was trained on, of the same shape.
        data_root: Where cifar10, svhn or celeba lie.
    """

    model: ModelFolder
    data: Annotated[str | None, _DATA] = None
    data_root: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(StoredFlowOptions):
    """Options of ``invattn density evaluate``.

    Attributes:
        test_size: Test samples (default: as many as the training's table).
        seed: Decides generated samples, noise and probes (default: that of the training).
        unbiased: Measure by the unbiased estimator too, where log-determinants are exact.
        importance_samples: Images: draws of the noise for the bound of the grey levels' bits; 1: evidence lower bound,
            0: none.
        stress: Inputs of each kind on which the inverse is tried; 0: only test samples.
        output: Folder for evaluation.json.
    """

    test_size: Annotated[int | None, whole_number(2)] = None
    seed: int | None = None
    unbiased: Switch = False
    importance_samples: Annotated[int, "K"] = 0
    stress: int = 100
    output: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SampleOptions(StoredFlowOptions):
    """Options of ``invattn density sample``.

    Attributes:
        count: How many samples (images: 36, others: 12).
        temperature: Spread of the base (images: 0.7,0.8,1; others take one, by default 1).
        interpolate: Images: walk between test images.
        nearest: Images: training images nearest to samples.
        fid_features: Images: Frechet distance by this TorchScript module, uint8 images (B, 3, H, W) to features (B, F).
        seed: Decides the samples.
        output: Folder to write.

    Raises:
        DataError: If a temperature is out of range or stands twice.
    """

    count: Count | None = None
    temperature: Annotated[tuple[float, ...] | None, list_of(number_between(0.0, math.inf)), "T,..."] = None
    interpolate: Switch = False
    nearest: Switch = False
    fid_features: Annotated[Path | None, "FILE"] = None
    seed: int = 0
    output: Path

    def __post_init__(self) -> None:
        for value in self.temperatures:
            if not 0 < value <= _LARGEST_TEMPERATURE:
                raise DataError(f"the temperature must be above 0 and at most {_LARGEST_TEMPERATURE:g}; got {value:g}.")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise DataError("give at least one temperature, and each once.")

    @property
    def images(self) -> int:
        """Samples at each temperature, of a flow over images."""
        return self.count or 36

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Factors of the base's standard deviation, for a flow over images."""
        return self.temperature or (0.7, 0.8, 1.0)

    @property
    def needs_images(self) -> bool:
        """Whether real images have to be read."""
        return self.interpolate or self.nearest or self.fid_features is not None
