"""The options of ``invattn camouflage``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from jsonargparse import ActionYesNo

from invattn import RECIPES
from invattn.experiments.camouflage.config import BACKBONES, KINDS, SYNTHETIC, TABLE_RECIPES
from invattn.experiments.kit.parser import (
    InvalidValue,
    OneLineParser,
    number_between,
    number_from,
    one_of,
    some_of,
    whole_number,
    yes_or_no,
)
from invattn.experiments.kit.training.machines import ACCELERATORS
from invattn.experiments.kit.training.optimisation import PRECISIONS

_POSITIVE = number_between(0.0, math.inf)
_COUNT = whole_number(1)


def train_parser() -> OneLineParser:
    """Return the parser of ``camouflage train``; what is not given is the paper's, or that of ``--quick``."""
    parser = OneLineParser(
        description="Train the camouflage network with each attention module, measure its maps on every test set, and "
        "write OUTPUT/results.json, the models and OUTPUT/report.html.",
        epilog="Options that are not given are the paper's (352 pixels, ResNet-50, Adam with rate 2.5e-5, batch 6, 30 "
        "epochs), or with --quick those of a small network at 96 pixels.",
    )
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="read options from a YAML file")
    quick = "a small network at 96 pixels: minutes on two cores"
    parser.add_argument("--quick", action=ActionYesNo(no_prefix="no-"), default=False, help=quick)
    _add_data_options(parser)
    _add_model_options(parser)
    _add_training_options(parser)
    _add_run_options(parser)
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder to write (required)")
    parser.add_argument(
        "--resume", action=ActionYesNo(no_prefix="no-"), default=False, help="continue the run stopped in OUTPUT"
    )
    return parser


def evaluate_parser() -> OneLineParser:
    """Return the parser of ``camouflage evaluate``."""
    parser = OneLineParser(
        description="Measure predicted maps of any size against masks: 8-bit images, paired by their name without the "
        "ending. A folder of folders is several sets."
    )
    parser.add_argument("--predictions", type=str, required=True, metavar="DIR", help="the maps (required)")
    parser.add_argument("--masks", type=str, required=True, metavar="DIR", help="the true masks (required)")
    parser.add_argument(
        "--name", type=str, default=None, metavar="NAME", help="of a single set (default: its folder's)"
    )
    parser.add_argument(
        "--output", type=str, default=".", metavar="DIR", help="where results.json and the page maps.html go"
    )
    parser.add_argument("--images", type=str, default=None, metavar="DIR", help="the images, for the page")
    return parser


def predict_parser() -> OneLineParser:
    """Return the parser of ``camouflage predict``."""
    parser = OneLineParser(description="Write the map of every image of a folder as an 8-bit PNG of the image's size.")
    parser.add_argument("model", type=str, metavar="MODEL", help="a model folder: OUTPUT/model/VARIANT of a run")
    parser.add_argument("--images", type=str, required=True, metavar="DIR", help="folder of images (required)")
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder to write (required)")
    return parser


def test_sets(value: object) -> object:
    """Parse one NAME=DIR, or each of a list: the parser of commands checks the gathered list once more."""
    return [test_set(part) for part in value] if isinstance(value, list) else test_set(value)


def test_set(value: object) -> tuple[str, Path]:
    """Parse NAME=DIR; a mapping with one entry, as a YAML file may hold, is valid too."""
    if isinstance(value, Mapping) and len(value) == 1:
        name, folder = next(iter(value.items()))
    elif isinstance(value, tuple) and len(value) == 2:
        name, folder = value
    else:
        name, _, folder = str(value).partition("=")
    if not str(name).strip() or not str(folder).strip():
        raise InvalidValue(f"expected NAME=DIR, such as CAMO=TestDataset/CAMO; got {value!r}.")
    return str(name).strip(), Path(str(folder).strip())


def data_name(value: object) -> str:
    """Parse ``synthetic``, or the path of an existing folder."""
    name = str(value)
    return (
        name if name != SYNTHETIC and Path(name).is_dir() else one_of((SYNTHETIC,), what="data set, or folder,")(name)
    )


def _add_data_options(parser: OneLineParser) -> None:
    data = "synthetic, or a folder with Imgs and GT to train on"
    parser.add_argument("--data", type=data_name, default=SYNTHETIC, metavar="NAME|DIR", help=data)
    test = (
        "a test set, a folder with Imgs and GT; may be repeated; CAMO, CHAMELEON, COD10K, NC4K are the paper's columns"
    )
    parser.add_argument("--test", type=test_sets, action="append", default=None, metavar="NAME=DIR", help=test)
    _add(parser, "difficulty", number_from(0.0, 1.0001), "D", "synthetic: from 0, plain to see, to 1, hidden")
    _add(parser, "train_size", _COUNT, "N", "training images")
    _add(parser, "test_size", _COUNT, "N", "images of each test set")
    _add(parser, "image_size", whole_number(33), "N", "side in pixels to which images are resized")


def _add_model_options(parser: OneLineParser) -> None:
    kinds = f"of {', '.join(KINDS)}; or all; none is the paper's Base"
    _add(parser, "attention", some_of(KINDS, what="attention"), "KIND,...", kinds)
    recipes = f"of {', '.join(RECIPES)}; all is {', '.join(TABLE_RECIPES)}"
    _add(parser, "recipe", some_of(RECIPES, what="recipe"), "RECIPE,...", recipes)
    _add(parser, "lipschitz", number_between(0.0, 1.0), "C", "bound of certified attention, coefficient of the others")
    _add(parser, "backbone", one_of(BACKBONES, what="backbone"), "NAME", ", ".join(BACKBONES))
    _add(parser, "backbone_weights", str, "hub|none|DIR", "pretrained on ImageNet, from the hub or a folder")


def _add_training_options(parser: OneLineParser) -> None:
    _add(parser, "epochs", _COUNT, "N", "passes over the training images")
    _add(parser, "batch_size", _COUNT, "N", "images in a batch")
    _add(parser, "lr", _POSITIVE, "RATE", "learning rate of Adam at the start")
    _add(parser, "lr_decay", number_between(0.0, 1.0001), "F", "its factor from epoch to epoch; the paper names none")
    _add(parser, "vary", yes_or_no, "yes|no", "turn, mirror and recolour training images at random")
    _add(parser, "pretrain_epochs", whole_number(0), "N", "passes that train the backbone alone, once for all rows")
    _add(parser, "precision", one_of(PRECISIONS, what="precision"), "NAME", "fp32, or bf16 for matrix products")
    _add(parser, "repeats", _COUNT, "N", "trainings of each row with different seeds")
    _add(parser, "seed", whole_number(0), "N", "decides everything that is random")


def _add_run_options(parser: OneLineParser) -> None:
    _add(parser, "checkpoint_minutes", _POSITIVE, "M", "time between saves of an unfinished training")
    _add(parser, "preview", yes_or_no, "yes|no", "draw maps after every epoch in OUTPUT/tensorboard")
    _add(parser, "accelerator", one_of(ACCELERATORS, what="accelerator"), "NAME", "cpu, gpu, or auto")
    _add(parser, "workers", _COUNT, "N", "rows trained at the same time, each in a process of its own")
    _add(parser, "devices", _COUNT, "N", "processes, or GPUs, of each machine that share every batch")
    _add(parser, "nodes", _COUNT, "N", "machines; start the command on each with NODE_RANK, MASTER_ADDR, MASTER_PORT")


def _add(parser: OneLineParser, name: str, kind: Callable[[object], object] | type, metavar: str, text: str) -> None:
    parser.add_argument("--" + name.replace("_", "-"), type=kind, default=None, metavar=metavar, help=text)
