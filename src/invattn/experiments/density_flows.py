"""Which flow the options of a density run stand for."""

from __future__ import annotations

from invattn.checkpoints import FlowConfig, ImageFlowConfig, TokenFlowConfig, VectorFlowConfig
from invattn.experiments.density_model_options import ModelOptions, format_numbers, parse_positions
from invattn.experiments.variants import choose_solver
from invattn.flows import FLOW_SOLVER, IMAGE_MIXERS, TOKEN_MIXERS
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Unconstrained
from invattn.solvers import Solver

MIXERS: dict[str, tuple[str, ...]] = {"sets": TOKEN_MIXERS, "plane": ("none",), "images": IMAGE_MIXERS}
"""What may stand between the tokens of the flows of each family of data."""

CONTROLS = ("uniform", "convolution", "none")
"""Mixers that are no attention and have one form only, the certified one."""

_UNCERTIFIED: tuple[type[Recipe], ...] = (Paper, Released, ReleasedGenerative, Unconstrained)


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
    if family == "images":
        return _images(event_shape, options, attention=attention, recipe=recipe, levels=levels)
    if len(options.blocks) != 1:
        raise ValueError(f"blocks must be one number for this data; got {format_numbers(options.blocks)}.")
    if family == "plane":
        return _plane(event_shape, options)
    return _sets(event_shape, options, attention=attention, recipe=recipe)


def _sets(event_shape: tuple[int, ...], options: ModelOptions, *, attention: str, recipe: str) -> FlowConfig:
    form = Certified(mean_shift=True) if recipe == "certified" else _uncertified(recipe)
    return TokenFlowConfig(
        tokens=event_shape[0],
        channels=event_shape[1],
        attention=attention,
        blocks=options.blocks[0],
        attention_layers=options.attention_layers,
        hidden_channels=(options.hidden_channels, options.hidden_channels),
        recipe=form,
        lipschitz=options.lipschitz,
        solver=_solver(form),
    )


def _images(
    event_shape: tuple[int, ...], options: ModelOptions, *, attention: str, recipe: str, levels: int
) -> FlowConfig:
    form = Certified() if recipe == "certified" else _uncertified(recipe)
    channels, height, width = event_shape
    return ImageFlowConfig(
        image_shape=(channels, height, width),
        blocks=options.blocks,
        hidden_channels=options.hidden_channels,
        attention=attention,
        attention_positions=parse_positions(options.attention_positions),
        recipe=form,
        lipschitz=options.lipschitz,
        kernel_sizes=options.kernel_sizes,
        activation=options.activation,
        levels=levels if options.histogram else 0,
        dequantisation=options.dequantisation,
        grey_levels=levels,
        whitening=options.whitening,
        whitening_ridge=options.whitening_ridge,
        whitening_reach=options.whitening_reach,
        knots=options.knots,
        channel_knots=options.channel_knots,
        first_squeeze=options.first_squeeze,
        split=options.split,
        prior_channels=options.prior_channels,
        channel_mixing=options.channel_mixing,
        position_logits=options.position_logits,
        self_logit=options.self_logit,
        num_heads=options.num_heads,
        solver=_solver(form),
    )


def _plane(event_shape: tuple[int, ...], options: ModelOptions) -> FlowConfig:
    return VectorFlowConfig(
        dimensions=event_shape[0],
        blocks=options.blocks[0],
        hidden_channels=(options.hidden_channels, options.hidden_channels),
        lipschitz=options.lipschitz,
        activation=options.activation,
        solver=FLOW_SOLVER,
    )


def _uncertified(recipe: str) -> Recipe:
    return {form.name: form for form in _UNCERTIFIED}[recipe]()


def _solver(form: Recipe) -> Solver:
    return FLOW_SOLVER if isinstance(form, Certified) else choose_solver(form, name="default", iterations=None)
