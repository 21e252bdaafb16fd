"""Which flow the options of a density run stand for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

from invattn import RECIPES
from invattn.experiments.kit.options import Count, Mark, Positive, Share, number_from, one_of, some_of
from invattn.experiments.kit.solver import choose_solver
from invattn.flows import FLOW_SOLVER, IMAGE_MIXERS, TOKEN_MIXERS, ImageOptions
from invattn.flows.multiscale import Positions
from invattn.hub import DEQUANTISATIONS, FlowConfig, ImageFlowConfig, TokenFlowConfig, VectorFlowConfig
from invattn.lipschitz import ACTIVATIONS
from invattn.recipes import Certified, make_recipe

MIXERS: dict[str, tuple[str, ...]] = {"sets": TOKEN_MIXERS, "plane": ("none",), "images": IMAGE_MIXERS}
"""What may stand between the tokens of the flows of each family of data."""

_ALL_MIXERS = tuple(dict.fromkeys(name for names in MIXERS.values() for name in names))

CONTROLS = ("uniform", "convolution", "none")
"""Mixers that are no attention and have one form only, the certified one."""


@dataclass(frozen=True, kw_only=True)
class VariantOptions:
    """Flows.

    Attributes:
        attention: What stands between the tokens, or all.
        recipe: Recipes of the attention, or all; the controls uniform, convolution and none are always certified.
        blocks: Blocks at each scale; sets and points: how often attention and MLP are repeated.
        attention_layers: Sets: attention blocks before each MLP.
        hidden_channels: Width of the hidden layers of convolutions and MLPs.
        lipschitz: Bound of certified branches, coefficient of the constrained maps of the others.
        terms: Terms of the log-determinant's power series in training.
    """

    attention: Annotated[str, some_of(_ALL_MIXERS, what="attention of a flow"), "KIND,...", Mark.NOT_OF_A_CELL] = (
        "embedded_gaussian,pointwise"
    )
    recipe: Annotated[str, some_of(RECIPES, what="recipe"), "RECIPE,...", Mark.NOT_OF_A_CELL] = "certified"
    blocks: tuple[int, ...] = (4,)
    attention_layers: Count = 3
    hidden_channels: Count = 32
    lipschitz: Annotated[Share, "C"] = 0.99
    terms: Count = 5


@dataclass(frozen=True, kw_only=True)
class ImageFlowOptions(ImageOptions):
    """Flows over images.

    Attributes:
        attention_positions: Where attention stands: scale:block,... such as 0:-1, counted from 0 and -1 the last, or
            interleaved:k for after every k-th block of every scale.
        histogram: Make each entry normal by the histogram of its grey levels first.
        dequantisation: Noise of whole grey levels, uniform or variational (learned).
    """

    attention_positions: Annotated[str, "POSITIONS"] = "0:-1"
    histogram: bool = False
    dequantisation: Annotated[str, one_of(DEQUANTISATIONS, what="dequantisation")] = "uniform"

    NARROWED: ClassVar = {
        "activation": Annotated[str, one_of(tuple(ACTIVATIONS), what="activation")],
        "whitening_ridge": Annotated[Positive, "V"],
        "whitening_reach": Annotated[float, number_from(0.0, math.inf), "R"],
        "self_logit": Annotated[float, "B"],
        "first_squeeze": Count,
        "num_heads": Count,
    }


def parse_positions(text: str) -> Positions:
    """Return the positions that ``scale:block,scale:block`` or ``interleaved:k`` stands for.

    Raises:
        ValueError: If the text is neither.
    """
    if text.startswith("interleaved"):
        return text
    pairs = [re.fullmatch(r"(-?[0-9]+):(-?[0-9]+)", part.strip()) for part in text.split(",")]
    found = tuple((int(pair[1]), int(pair[2])) for pair in pairs if pair is not None)
    if len(found) < len(pairs):
        raise ValueError(
            "attention_positions are scale:block pairs separated by commas, such as 0:-1, or interleaved:k; got "
            f"{text!r}."
        )
    return found


@dataclass(frozen=True, kw_only=True)
class ModelOptions(VariantOptions, ImageFlowOptions):
    """What a flow is built from."""


def flow_config(
    family: str, event_shape: tuple[int, ...], options: ModelOptions, *, attention: str, recipe: str, levels: int = 0
) -> FlowConfig:
    """Return what the flow of a variant is built from; the family is ``sets``, ``plane`` or ``images``.

    Raises:
        ValueError: If the images do not fit the scales, or a position does not exist.
    """
    form = Certified(mean_shift=family == "sets") if recipe == "certified" else make_recipe(recipe)
    solver = FLOW_SOLVER if recipe == "certified" else choose_solver(form, name="default", iterations=None)
    if family == "images":
        return ImageFlowConfig(
            image_shape=event_shape,
            blocks=options.blocks,
            hidden_channels=options.hidden_channels,
            attention=attention,
            attention_positions=parse_positions(options.attention_positions),
            recipe=form,
            lipschitz=options.lipschitz,
            levels=levels if options.histogram else 0,
            dequantisation=options.dequantisation,
            grey_levels=levels,
            solver=solver,
            **{entry.name: getattr(options, entry.name) for entry in fields(ImageOptions)},
        )
    if len(options.blocks) != 1:
        raise ValueError(f"blocks must be one number for this data; got {','.join(map(str, options.blocks))}.")
    (blocks,), widths = options.blocks, (options.hidden_channels, options.hidden_channels)
    if family == "plane":
        return VectorFlowConfig(
            dimensions=event_shape[0],
            blocks=blocks,
            hidden_channels=widths,
            lipschitz=options.lipschitz,
            activation=options.activation,
            solver=FLOW_SOLVER,
        )
    return TokenFlowConfig(
        tokens=event_shape[0],
        channels=event_shape[1],
        attention=attention,
        blocks=blocks,
        attention_layers=options.attention_layers,
        hidden_channels=widths,
        recipe=form,
        lipschitz=options.lipschitz,
        solver=solver,
    )
