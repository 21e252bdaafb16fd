"""What every stored flow can say of how it is built."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, cast

from invattn._errors import DataError, check_name
from invattn.bijections import Composed
from invattn.flows import (
    Dequantisation,
    Dequantised,
    Flow,
    ImageArchitecture,
    StandardNormal,
    VariationalDequantisation,
    VectorArchitecture,
    token_flow,
)
from invattn.hub.config import StoredConfig, describe, restore_recipe, restore_solver
from invattn.logdet import WHOLE, LogDetEstimator, PowerSeries, RussianRoulette
from invattn.recipes import Certified, Recipe
from invattn.solvers import Solver


class FlowConfig(StoredConfig):
    """The configuration of a flow, a frozen dataclass with ``solver``, plain values, and perhaps ``recipe``.

    Attributes:
        model: Name of the family, kept in the file.
        solver: How residual blocks are inverted; None is the default.
    """

    model: ClassVar[str]
    solver: Solver | None

    def build(self) -> Composed:
        return self.build_with(None)

    @abstractmethod
    def build_with(self, log_det_estimator: LogDetEstimator | None) -> Composed:
        """Return a new model as ``build`` does, whose blocks use this estimator of the log-determinant."""

    @abstractmethod
    def distribution(self, bijection: Composed) -> Flow:
        """Return the distribution that the bijection and the base make."""

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    def to_json(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self._names()}
        plain = {name: describe(part) if isinstance(part, Recipe | Solver) else part for name, part in own.items()}
        return {"model": self.model} | plain

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild a configuration.

        Raises:
            DataError: If keys are missing or unknown, or name what this version does not have.
        """
        known = {"model", *cls._names()}
        if not isinstance(value, dict) or set(value) != known or value["model"] != cls.model:
            raise DataError(f"config.json must hold exactly these keys: {', '.join(sorted(known))}.")
        plain = {name: _tuples(part) for name, part in value.items() if name != "model"}
        if "recipe" in known:
            plain["recipe"] = restore_recipe(value["recipe"])
        plain["solver"] = None if value["solver"] is None else restore_solver(value["solver"])
        try:
            return cls(**plain)
        except (TypeError, ValueError) as error:
            raise DataError(f"config.json cannot be built: {error}") from None

    @classmethod
    def _names(cls) -> list[str]:
        return [entry.name for entry in fields(cast(Any, cls))]


def _tuples(value: Any) -> Any:
    """Turn lists, also those in lists, back into the tuples that they were."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class TokenFlowConfig(FlowConfig):
    """A flow over sets of tokens with a standard normal base; see :func:`invattn.flows.token_flow`.

    Attributes:
        tokens: N, tokens of one sample.
        channels: C.
        attention: What stands between the tokens.
        blocks: How often attention and MLP are repeated.
        attention_layers: Attention blocks before each MLP.
        hidden_channels: Of each MLP.
        recipe: Form of the attention.
        lipschitz: c of every residual block.
        solver: How they are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
    """

    model: ClassVar[str] = "token_flow"

    tokens: int
    channels: int
    attention: str = "embedded_gaussian"
    blocks: int = 4
    attention_layers: int = 3
    hidden_channels: tuple[int, ...] = (32, 32)
    recipe: Recipe = field(default_factory=lambda: Certified(mean_shift=True))
    lipschitz: float = 0.99
    solver: Solver | None = None

    def __post_init__(self) -> None:
        widths: object = self.hidden_channels  # of a file, where it may be anything
        if not isinstance(widths, tuple) or any(not isinstance(width, int) for width in widths):
            raise ValueError(f"hidden_channels must be a list of numbers; got {widths!r}.")

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.tokens, self.channels

    def build_with(self, log_det_estimator: LogDetEstimator | None) -> Composed:
        """Return a new model as ``build`` does, whose blocks use this estimator of the log-determinant."""
        return token_flow(
            self.channels,
            attention=self.attention,
            blocks=self.blocks,
            attention_layers=self.attention_layers,
            hidden_channels=self.hidden_channels,
            recipe=self.recipe,
            lipschitz=self.lipschitz,
            solver=self.solver,
            log_det_estimator=log_det_estimator,
        )

    def distribution(self, bijection: Composed) -> Flow:
        """Return the distribution of samples (N, C) that the bijection and the base make."""
        return Flow(bijection, StandardNormal(self.event_shape))


@dataclass(frozen=True, kw_only=True)
class VectorFlowConfig(VectorArchitecture, FlowConfig):
    """A residual flow over vectors with a standard normal base; see :class:`invattn.flows.ResidualFlow`.

    Attributes:
        solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
    """

    model: ClassVar[str] = "residual_flow"

    solver: Solver | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.dimensions,)

    def build_with(self, log_det_estimator: LogDetEstimator | None) -> Composed:
        options = {entry.name: getattr(self, entry.name) for entry in fields(VectorArchitecture)}
        return VectorArchitecture(**options).bijection(solver=self.solver, log_det_estimator=log_det_estimator)

    def distribution(self, bijection: Composed) -> Flow:
        return Flow(bijection, StandardNormal(self.event_shape))


DEQUANTISATIONS = ("uniform", "variational")
"""Where the noise of dequantised images comes from."""


@dataclass(frozen=True, kw_only=True)
class ImageFlowConfig(ImageArchitecture, FlowConfig):
    """A multi-scale flow over images with a standard normal base; see :class:`invattn.flows.MultiscaleIResNet`.

    Attributes:
        solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
        dequantisation: ``uniform``, or ``variational``: learned noise, kept with the model beside its chain.
        grey_levels: Number of values of an entry of an image.
    """

    model: ClassVar[str] = "multiscale_iresnet"

    solver: Solver | None = None
    dequantisation: str = "uniform"
    grey_levels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.dequantisation, DEQUANTISATIONS, what="dequantisation")
        if self.grey_levels < 2:
            raise ValueError(f"grey_levels must be at least 2; got {self.grey_levels}.")

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.image_shape

    def build_with(self, log_det_estimator: LogDetEstimator | None) -> Composed:
        options = {entry.name: getattr(self, entry.name) for entry in fields(ImageArchitecture)}
        chain = ImageArchitecture(**options).bijection(solver=self.solver, log_det_estimator=log_det_estimator)
        if self.dequantisation == "variational":
            # No link of the chain, but part of the model: saved, loaded and trained with it.
            shard = log_det_estimator.shard if isinstance(log_det_estimator, PowerSeries | RussianRoulette) else WHOLE
            learned = VariationalDequantisation(self.image_shape, levels=self.grey_levels, shard=shard)
            chain.add_module("dequantisation", learned)
        return chain

    def distribution(self, bijection: Composed) -> Flow:
        return Flow(bijection, StandardNormal(bijection.output_shape(self.image_shape)))

    def dequantised(self, bijection: Composed, *, low: float = -0.5) -> Dequantised:
        """Return the distribution of images of whole values that the bijection, base and dequantisation make.

        Args:
            bijection: What ``build`` made.
            low: Where the interval of the flow's inputs begins.
        """
        learned = dict(bijection.named_children()).get("dequantisation")
        assert learned is None or isinstance(learned, Dequantisation)
        return Dequantised(self.distribution(bijection), learned, levels=self.grey_levels, low=low)
