"""What a user decides about camouflaged object detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from invattn import ATTENTION_KINDS, RECIPES
from invattn.experiments.kit.options import (
    Count,
    InvalidValue,
    Mark,
    OutputOptions,
    Positive,
    Reader,
    Share,
    Switch,
    command_line,
    name_or_folder,
    number_between,
    number_from,
    one_of,
    some_of,
    split_names,
    whole_number,
)
from invattn.experiments.kit.training.optimisation import CheckpointMinutes, SharedTraining

if TYPE_CHECKING:  # needs a library that takes seconds to import
    from invattn.experiments.camouflage.network import NetworkConfig

SYNTHETIC = "synthetic"
NO_ATTENTION = "none"
KINDS = (NO_ATTENTION, *ATTENTION_KINDS)
TABLE_RECIPES = ("unconstrained", "paper", "certified")
"""The recipes of the table's rows; ``all`` means these."""

BACKBONES = ("resnet50", "small")

QUICK: Mapping[str, Any] = {
    "backbone": "small",
    "backbone_weights": "none",
    "image_size": 96,
    "difficulty": 0.0,
    "train_size": 600,
    "test_size": 100,
    "batch_size": 4,
    "pretrain_epochs": 16,
    "epochs": 2,
    "lr": 7e-4,
    "lr_decay": 0.2,
    "vary": True,
    "workers": 2,
}
"""What ``--quick`` changes, where nothing else is given."""

_LARGEST_LR = 1e6


def _test_set(value: object) -> object:
    """Parse NAME=DIR; a mapping with one entry, as a YAML file may hold, is valid too, and a list of them.

    The parser of commands checks the gathered list once more.
    """
    if isinstance(value, list):
        return [_test_set(part) for part in value]
    if isinstance(value, Mapping) and len(value) == 1:
        name, folder = next(iter(value.items()))
    elif isinstance(value, tuple) and len(value) == 2:
        name, folder = value
    else:
        name, _, folder = str(value).partition("=")
    if not str(name).strip() or not str(folder).strip():
        raise InvalidValue(f"expected NAME=DIR, such as CAMO=TestDataset/CAMO; got {value!r}.")
    return str(name).strip(), Path(str(folder).strip())


@dataclass(frozen=True, kw_only=True)
class CamouflageConfig(SharedTraining, OutputOptions):
    """Options of ``invattn camouflage train``; the defaults are the paper's, where it names them.

    Attributes:
        quick: A small network at 96 pixels: minutes on two cores.
        data: synthetic, or a folder with Imgs and GT to train on.
        test: A test set, a folder with Imgs and GT; may be repeated; CAMO, CHAMELEON, COD10K, NC4K are the paper's
            columns; synthetic data have one of their own.
        attention: Kinds of attention, or all; none is the paper's Base.
        recipe: Recipes of the attention; all is unconstrained, paper, certified.
        image_size: Side in pixels to which images are resized.
        backbone: What finds features.
        backbone_weights: Pretrained on ImageNet, from the hub or a folder with a ResNet of the transformers library.
        epochs: Passes over the training images.
        batch_size: Images in a batch.
        lr: Learning rate of Adam at the start.
        lr_decay: Its factor from epoch to epoch, reached by equal factors at every step; the paper names none.
        vary: Turn, mirror and recolour training images at random; the paper names no such thing.
        pretrain_epochs: Passes that train the backbone alone, under a light head, once for all rows; none in the
            paper, whose backbone knows ImageNet.
        lipschitz: Bound of certified attention, coefficient of the others.
        difficulty: Synthetic: from 0, plain to see, to 1, hidden.
        train_size: Training images (default: all of a folder, 1,000 synthetic ones).
        test_size: Images of each test set (default: all of a folder, 200 synthetic ones).
        workers: Rows trained at the same time, each in a process of its own.
        preview: Draw maps after every epoch in OUTPUT/tensorboard.

    Raises:
        ValueError: If a name is unknown or a number out of range.
    """

    quick: Annotated[Switch, Mark.UNSTORED] = False
    data: Annotated[str, name_or_folder((SYNTHETIC,), what="data set, or folder,")] = SYNTHETIC
    test: Annotated[tuple[tuple[str, Path], ...], Reader(_test_set, "NAME=DIR"), Mark.REPEATED] = ()
    attention: Annotated[str, some_of(KINDS, what="attention"), "KIND,...", Mark.NOT_OF_A_CELL] = "all"
    recipe: Annotated[str, some_of(RECIPES, what="recipe"), "RECIPE,...", Mark.NOT_OF_A_CELL] = "all"
    image_size: Annotated[int, whole_number(33)] = 352
    backbone: Annotated[str, one_of(BACKBONES, what="backbone")] = "resnet50"
    backbone_weights: Annotated[str, "hub|none|DIR"] = "hub"
    epochs: Count = 30
    batch_size: Count = 6
    lr: Annotated[Positive, "RATE"] = 2.5e-5
    lr_decay: Annotated[float, number_between(0.0, 1.0, closed=True), "F"] = 1.0
    vary: bool = False
    pretrain_epochs: int = 0
    lipschitz: Annotated[Share, "C"] = 0.9
    difficulty: Annotated[float, number_from(0.0, 1.0, closed=True), "D"] = 0.5
    train_size: Count | None = None
    test_size: Count | None = None
    workers: Annotated[Count, Mark.NOT_OF_A_CELL] = 1
    checkpoint_minutes: CheckpointMinutes = 2.0
    preview: Annotated[bool, Mark.UNSTORED] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr > _LARGEST_LR:
            raise ValueError(f"lr must be at most {_LARGEST_LR:g}; got {self.lr}.")
        if self.workers > 1 and self.devices * self.nodes > 1:
            raise ValueError("workers train different rows and devices share one: give --workers 1, or --devices 1.")
        if self.pretrain_epochs and self.nodes > 1:
            raise ValueError("pretrain_epochs is for one machine: train there first, or give --pretrain-epochs 0.")
        names = [name for name, _ in self.test]
        if len(set(names)) < len(names):
            raise ValueError(f"two test sets have one name ({', '.join(names)}): give each its own.")
        if self.backbone == "small" and self.backbone_weights == "hub":
            raise ValueError("backbone_weights hub are those of resnet50; give none with backbone small.")
        self.variants()

    def variants(self) -> tuple[tuple[str, str], ...]:
        """Return (attention, recipe) of every row of the table, each once."""
        kinds = split_names(self.attention, KINDS, everything=KINDS, what="attention")
        recipes = split_names(self.recipe, RECIPES, everything=TABLE_RECIPES, what="recipe")
        pairs = [(kind, NO_ATTENTION if kind == NO_ATTENTION else form) for kind in kinds for form in recipes]
        return tuple(dict.fromkeys(pairs))

    def network_config(self, attention: str, recipe: str) -> NetworkConfig:
        """Return what the network of a row is built from."""
        from invattn.experiments.camouflage.network import NetworkConfig
        from invattn.recipes import make_recipe

        return NetworkConfig(
            kind=attention,
            recipe=None if attention == NO_ATTENTION else make_recipe(recipe),
            lipschitz=self.lipschitz,
            backbone=self.backbone,
            image_size=self.image_size,
        )

    def threads(self, available: int) -> int:
        """Return the threads of torch in each process."""
        return max(1, available // self.workers)

    def settings(self, *, of_a_cell: bool = False) -> dict[str, Any]:
        """Return every option that may change the numbers, as run; of folders, the names only."""
        weights = self.backbone_weights if self.backbone_weights in ("hub", "none") else "PATH"
        data = self.data if self.data == SYNTHETIC else Path(self.data).name
        names = {"data": data, "backbone_weights": weights, "test": [name for name, _ in self.test]}
        return super().settings(of_a_cell=of_a_cell) | names

    def command(self) -> str:
        """Return a command line that repeats the run, with placeholders for the folders of this machine."""
        tests = "".join(f" --test {name}=DIR" for name, _ in self.test)
        data = SYNTHETIC if self.data == SYNTHETIC else "DIR"
        return command_line(f"camouflage train{tests}", self.settings() | {"data": data, "test": None})


def camouflage_config(given: Mapping[str, Any]) -> CamouflageConfig:
    """Return the options of a run: those given, for the others those of ``quick`` where it is asked for.

    Args:
        given: Option name -> value, ``output`` at least.

    Raises:
        ValueError: If a name is unknown or a number out of range.
    """
    return CamouflageConfig(**{**(QUICK if given.get("quick") else {}), **given})
