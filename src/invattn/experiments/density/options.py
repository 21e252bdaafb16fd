"""The options of ``invattn density train``."""

from __future__ import annotations

import math
from collections.abc import Callable

from jsonargparse import ActionYesNo

from invattn import RECIPES
from invattn.experiments.density.config import DATASETS, is_folder
from invattn.experiments.density.flows import MIXERS
from invattn.experiments.kit.parser import (
    OneLineParser,
    number_between,
    number_from,
    numbers,
    one_of,
    some_of,
    whole_number,
    yes_or_no,
)
from invattn.experiments.kit.training.machines import ACCELERATORS
from invattn.experiments.kit.training.optimisation import OPTIMIZERS, PRECISIONS
from invattn.hub import DEQUANTISATIONS
from invattn.lipschitz import ACTIVATIONS

_MIXERS = tuple(dict.fromkeys(name for names in MIXERS.values() for name in names))
_POSITIVE = number_between(0.0, math.inf)
_COUNT = whole_number(1)


def train_parser() -> OneLineParser:
    """Return the parser of ``density train``; what is not given is what is recommended for the data set."""
    parser = OneLineParser(
        description="Train a flow for each attention by maximum likelihood, measure it on test samples, and write "
        "OUTPUT/results.json, the models and OUTPUT/report.html.",
        epilog="Options that are not given have values recommended for the data set; results.json lists all of them.",
    )
    parser.add_argument("--config", action="config", metavar="FILE.yaml", help="read options from a YAML file")
    _add_data_options(parser)
    _add_model_options(parser)
    _add_training_options(parser)
    _add_run_options(parser)
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder to write (required)")
    parser.add_argument(
        "--resume", action=ActionYesNo(no_prefix="no-"), default=False, help="continue the run stopped in OUTPUT"
    )
    return parser


def data_name(value: object) -> str:
    """Parse the name of a data set, or the path of a folder."""
    name = str(value)
    return name if is_folder(name) else one_of(DATASETS, what="data set")(name)


def _add_data_options(parser: OneLineParser) -> None:
    names = f"{', '.join(DATASETS)}, or a folder of images; sets: points around random centres"
    parser.add_argument("--data", type=data_name, default="sets", metavar="NAME|DIR", help=names)
    _add(parser, "data_root", str, "DIR", "where cifar10, svhn or celeba lie as published; without it: download")
    _add(parser, "image_size", whole_number(2), "N", "side of the images in pixels")
    _add(parser, "train_size", _COUNT, "N", "training images; generated samples are new at every step")
    _add(parser, "test_size", whole_number(2), "N", "test samples")
    _add(parser, "flips", yes_or_no, "yes|no", "mirror training images at random")


def _add_model_options(parser: OneLineParser) -> None:
    _add(parser, "attention", some_of(_MIXERS, what="attention of a flow"), "KIND,...", f"{', '.join(_MIXERS)}; or all")
    _add(parser, "recipe", some_of(RECIPES, what="recipe"), "RECIPE,...", f"of {', '.join(RECIPES)}; or all")
    _add(parser, "blocks", numbers(1), "N,...", "blocks at each scale; sets: how often attention and MLP are repeated")
    _add(parser, "attention_layers", _COUNT, "N", "sets: attention blocks before each MLP")
    _add(parser, "hidden_channels", _COUNT, "N", "width of the hidden layers of convolutions and MLPs")
    _add(parser, "lipschitz", number_between(0.0, 1.0), "C", "bound of certified branches, coefficient of the others")
    positions = "images: scale:block,... such as 0:-1, or interleaved:k"
    _add(parser, "attention_positions", str, "POSITIONS", positions)
    _add(parser, "kernel_sizes", numbers(1), "N,...", "images: of each convolutional branch")
    _add(parser, "activation", one_of(tuple(ACTIVATIONS), what="activation"), "NAME", "images: of each branch")
    _add(parser, "whitening", whole_number(0), "N", "images: side of the patches that are whitened first; 0: none")
    _add(
        parser, "histogram", yes_or_no, "yes|no", "images: make each entry normal by the histogram of its levels first"
    )
    _add(parser, "whitening_ridge", _POSITIVE, "V", "images: added to the variances of the patches")
    _add(
        parser,
        "whitening_reach",
        number_from(0.0, math.inf),
        "R",
        "images: pixels over which covariances fall; 0: they do not",
    )
    _add(parser, "knots", whole_number(0), "N", "images: of a spline of each whitened entry; 0: none")
    _add(parser, "channel_knots", whole_number(0), "N", "images: of splines in the place of ActNorm; 0: ActNorm")
    _add(parser, "first_squeeze", _COUNT, "N", "images: side of the patches that become channels")
    _add(parser, "split", yes_or_no, "yes|no", "images: half of the channels leave after each scale but the last")
    _add(parser, "prior_channels", whole_number(0), "N", "images: width of the prior of those; 0: standard normal")
    _add(parser, "channel_mixing", yes_or_no, "yes|no", "images: invertible 1 x 1 convolutions")
    _add(parser, "position_logits", yes_or_no, "yes|no", "images: learned logits by relative position")
    _add(parser, "self_logit", number_between(-math.inf, math.inf), "B", "images: their start at i = j")
    _add(parser, "num_heads", _COUNT, "N", "images: heads of each attention block")
    known = one_of(DEQUANTISATIONS, what="dequantisation")
    _add(
        parser, "dequantisation", known, "NAME", "images: noise of whole grey levels, uniform or variational (learned)"
    )
    _add(parser, "terms", _COUNT, "N", "terms of the log-determinant's power series in training")


def _add_training_options(parser: OneLineParser) -> None:
    _add(parser, "steps", _COUNT, "N", "training steps")
    _add(parser, "epochs", _COUNT, "N", "passes over the training images, in place of steps")
    _add(parser, "batch_size", _COUNT, "N", "samples in a batch")
    _add(parser, "optimizer", one_of(OPTIMIZERS, what="optimizer"), "NAME", "adam or adamax")
    _add(parser, "lr", _POSITIVE, "RATE", "largest learning rate")
    _add(parser, "warm_up", whole_number(0), "N", "steps in which it rises; a cosine takes it to 0")
    _add(parser, "clip", _POSITIVE, "NORM", "longer gradients are scaled to this norm")
    _add(parser, "averaging", number_from(0.0, 1.0), "D", "decay of the average of weights that is evaluated")
    _add(parser, "precision", one_of(PRECISIONS, what="precision"), "NAME", "fp32, or bf16 for matrix products")
    _add(parser, "repeats", _COUNT, "N", "trainings of each variant with different seeds")
    _add(parser, "seed", whole_number(0), "N", "decides everything that is random")


def _add_run_options(parser: OneLineParser) -> None:
    _add(parser, "checkpoint_minutes", _POSITIVE, "M", "time between saves of an unfinished training")
    _add(parser, "max_minutes", _POSITIVE, "M", "stop training after so long, with its state saved for --resume")
    _add(parser, "log_every", whole_number(0), "N", "steps between samples in OUTPUT/tensorboard; 0 writes no log")
    _add(parser, "accelerator", one_of(ACCELERATORS, what="accelerator"), "NAME", "cpu, gpu, or auto")
    _add(parser, "devices", _COUNT, "N", "processes, or GPUs, of each machine that share every batch")
    _add(parser, "nodes", _COUNT, "N", "machines; start the command on each with NODE_RANK, MASTER_ADDR, MASTER_PORT")


def _add(parser: OneLineParser, name: str, kind: Callable[[object], object] | type, metavar: str, text: str) -> None:
    parser.add_argument("--" + name.replace("_", "-"), type=kind, default=None, metavar=metavar, help=text)
