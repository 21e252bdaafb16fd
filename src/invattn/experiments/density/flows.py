"""Which flow the options of a density run stand for."""

from __future__ import annotations

from dataclasses import dataclass

from invattn._errors import check_name
from invattn.experiments.kit.solver import choose_solver
from invattn.flows import FLOW_SOLVER, IMAGE_MIXERS, TOKEN_MIXERS
from invattn.flows.image_architecture import Positions
from invattn.hub import FlowConfig, ImageFlowConfig, TokenFlowConfig, VectorFlowConfig
from invattn.hub.flow_config import DEQUANTISATIONS
from invattn.lipschitz import ACTIVATIONS
from invattn.recipes import Certified, Paper, Recipe, Released, ReleasedGenerative, Unconstrained
from invattn.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The flows; those of images are described in :class:`invattn.flows.MultiscaleIResNet`.

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
        kernel_sizes: Images: of each convolutional branch, in pixels.
        activation: Images and plane: of each branch.
        histogram: Images: whether each entry is first made normal by the histogram of its grey levels.
        whitening: Images: side of the patches that are whitened first; 0: none.
        whitening_ridge: Images: added to the variances of the patches, which are images in [-0.5, 0.5) or normal.
        whitening_reach: Images: distance in pixels over which their covariances are tapered; 0: they are not.
        knots: Images: of a spline of each whitened entry; 0: none.
        channel_knots: Images: of a spline of each channel in the place of ActNorm; 0: ActNorm.
        first_squeeze: Images: side of the patches that become channels at the first scale.
        split: Images: whether half of the channels leave after each scale but the last.
        prior_channels: Images: width of the learned prior of the channels that leave; 0: a standard normal.
        channel_mixing: Images: whether an invertible 1 x 1 convolution stands before every convolutional block.
        position_logits: Images: whether certified attention has learned logits by relative position.
        self_logit: Images: their start at i = j.
        num_heads: Images: heads of each attention block.
        dequantisation: Images: the noise that spreads whole grey levels: uniform, or variational, which is learned.
        terms: Terms of the power series of the log-determinant in training.
    """

    attention: str = "embedded_gaussian,pointwise"
    recipe: str = "certified"
    blocks: tuple[int, ...] = (4,)
    attention_layers: int = 3
    hidden_channels: int = 32
    lipschitz: float = 0.99
    attention_positions: str = "0:-1"
    kernel_sizes: tuple[int, ...] = (3, 1, 3)
    activation: str = "lipswish"
    histogram: bool = False
    whitening: int = 0
    whitening_ridge: float = 1e-5
    whitening_reach: float = 0.0
    knots: int = 0
    channel_knots: int = 0
    first_squeeze: int = 2
    split: bool = True
    prior_channels: int = 32
    channel_mixing: bool = False
    position_logits: bool = True
    self_logit: float = 0.0
    num_heads: int = 1
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
    pairs = []
    for part in text.split(","):
        scale, colon, block = part.strip().partition(":")
        if not colon or not _is_whole(scale) or not _is_whole(block):
            raise ValueError(
                "attention_positions are scale:block pairs separated by commas, such as 0:-1, or interleaved:k; got "
                f"{text!r}."
            )
        pairs.append((int(scale), int(block)))
    return tuple(pairs)


def format_numbers(numbers: tuple[int, ...]) -> str:
    """Return numbers as they are written on the command line, separated by commas."""
    return ",".join(str(number) for number in numbers)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


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
