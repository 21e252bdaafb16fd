"""Which flow the options of a density run stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from invattn._errors import check_name
from invattn.experiments.kit.solver import choose_solver
from invattn.flows import FLOW_SOLVER, IMAGE_MIXERS, TOKEN_MIXERS, ImageOptions
from invattn.flows.multiscale import Positions
from invattn.hub import DEQUANTISATIONS, FlowConfig, ImageFlowConfig, TokenFlowConfig, VectorFlowConfig
from invattn.lipschitz import ACTIVATIONS
from invattn.recipes import Certified, make_recipe


@dataclass(frozen=True, kw_only=True)
class VariantOptions:
    """What the flows of every family of data have.

    Attributes:
        attention: What stands between the tokens, separated by commas; ``all`` is every kind and control.
        recipe: Form of the attention, separated by commas; the controls ``uniform``, ``convolution`` and ``none`` are
            always certified.
        blocks: Images: convolutional blocks at each scale. Sets: how often attention and MLP are repeated. Plane: how
            often an MLP is.
        attention_layers: Sets: attention blocks before each MLP.
        hidden_channels: Width of the hidden layers of each convolutional branch or MLP.
        lipschitz: c, the bound of certified blocks and the coefficient of the constrained maps of the others.
        attention_positions: Images: where attention stands, ``scale:block`` separated by commas, both counted from 0
            and -1 the last, or ``interleaved:k`` for after every k-th block of every scale.
    """

    attention: str = "embedded_gaussian,pointwise"
    recipe: str = "certified"
    blocks: tuple[int, ...] = (4,)
    attention_layers: int = 3
    hidden_channels: int = 32
    lipschitz: float = 0.99
    attention_positions: str = "0:-1"


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ImageOptions, VariantOptions):
    """The flows: what all have, and what those of images have besides.

    Attributes:
        histogram: Images: whether each entry is first made normal by the histogram of its grey levels.
        dequantisation: Images: the noise that spreads whole grey levels: uniform, or variational, which is learned.
        terms: Terms of the power series of the log-determinant in training.
    """

    histogram: bool = False
    dequantisation: str = "uniform"
    terms: int = 5

    def check_model(self) -> None:
        """Check the numbers and names that do not depend on the data.

        Raises:
            ValueError: If one is out of range or unknown.
        """
        for name in ("attention_layers", "hidden_channels", "terms", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("blocks", "kernel_sizes"):
            numbers = getattr(self, name)
            if not numbers or min(numbers) < 1:
                raise ValueError(f"{name} must hold numbers, all at least 1; got {format_numbers(numbers)}.")
        if not self.whitening_ridge > 0:
            raise ValueError(f"whitening_ridge must be positive; got {self.whitening_ridge}.")
        if not 0 < self.lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {self.lipschitz}.")
        check_name(self.dequantisation, DEQUANTISATIONS, what="dequantisation")
        check_name(self.activation, tuple(ACTIVATIONS), what="activation")
        parse_positions(self.attention_positions)


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


def format_numbers(numbers: tuple[int, ...]) -> str:
    """Return numbers as they are written on the command line, separated by commas."""
    return ",".join(str(number) for number in numbers)


MIXERS: dict[str, tuple[str, ...]] = {"sets": TOKEN_MIXERS, "plane": ("none",), "images": IMAGE_MIXERS}
"""What may stand between the tokens of the flows of each family of data."""

CONTROLS = ("uniform", "convolution", "none")
"""Mixers that are no attention and have one form only, the certified one."""


def flow_config(
    family: str, event_shape: tuple[int, ...], options: ModelOptions, *, attention: str, recipe: str, levels: int = 0
) -> FlowConfig:
    """Return what the flow of a variant is built from.

    Args:
        family: ``sets``, ``plane`` or ``images``.
        event_shape: Of one sample.
        options: The user's.
        attention: What stands between the tokens.
        recipe: Form of the attention.
        levels: Grey levels of the images.

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
        raise ValueError(f"blocks must be one number for this data; got {format_numbers(options.blocks)}.")
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
