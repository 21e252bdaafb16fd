"""Flows on disk: what each family is built from, as options of the flow and what a stored model needs besides."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from invattn._errors import check_name
from invattn.bijections import Composed
from invattn.flows import (
    Dequantisation,
    Dequantised,
    Flow,
    ImageArchitecture,
    StandardNormal,
    TokenArchitecture,
    VariationalDequantisation,
    VectorArchitecture,
)
from invattn.hub.config import StoredConfig
from invattn.logdet import LogDetEstimator, PowerSeries, RussianRoulette, Shard
from invattn.solvers import Solver


class FlowConfig(StoredConfig):
    """The configuration of a flow with a standard normal base: the flow's architecture, and what belongs to its data.

    Attributes:
        solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
        log_det_estimator: Of its blocks; None is the default. It is not stored.
    """

    solver: Solver | None
    log_det_estimator: LogDetEstimator | None
    left_out: ClassVar[tuple[str, ...]] = ("log_det_estimator",)

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @abstractmethod
    def bijection(self) -> Composed:
        """Return a new bijection from samples to the base."""

    def build(self) -> Composed:
        return self.bijection()

    def build_with(self, log_det_estimator: LogDetEstimator | None) -> Composed:
        """Return a new model as ``build`` does, whose blocks use this estimator of the log-determinant."""
        return cast(FlowConfig, replace(cast(Any, self), log_det_estimator=log_det_estimator)).bijection()

    def distribution(self, bijection: Composed) -> Flow:
        """Return the distribution that the bijection and the base make."""
        return Flow(bijection, StandardNormal(bijection.output_shape(self.event_shape)))


@dataclass(frozen=True, kw_only=True)
class TokenFlowConfig(TokenArchitecture, FlowConfig):
    """A flow over sets of tokens; see :class:`invattn.flows.TokenArchitecture`.

    Attributes:
        tokens: N, tokens of one sample.
    """

    model: ClassVar[str | None] = "token_flow"
    added: ClassVar[tuple[str, ...]] = ("context_channels",)

    tokens: int

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.tokens, self.channels


@dataclass(frozen=True, kw_only=True)
class VectorFlowConfig(VectorArchitecture, FlowConfig):
    """A residual flow over vectors; see :class:`invattn.flows.VectorArchitecture`."""

    model: ClassVar[str | None] = "residual_flow"

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self.dimensions,)


DEQUANTISATIONS = ("uniform", "variational")
"""Where the noise of dequantised images comes from."""


@dataclass(frozen=True, kw_only=True)
class ImageFlowConfig(ImageArchitecture, FlowConfig):
    """A multi-scale flow over images; see :class:`invattn.flows.ImageArchitecture`.

    Attributes:
        dequantisation: ``uniform``, or ``variational``: learned noise, kept with the model beside its chain.
        grey_levels: Number of values of an entry of an image.
    """

    model: ClassVar[str | None] = "multiscale_iresnet"

    dequantisation: str = "uniform"
    grey_levels: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.dequantisation, DEQUANTISATIONS, what="dequantisation")
        if self.grey_levels < 2:
            raise ValueError(f"grey_levels must be at least 2; got {self.grey_levels}.")

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.image_shape)

    def bijection(self) -> Composed:
        chain = super().bijection()
        if self.dequantisation == "variational":
            # No link of the chain, but part of the model: saved, loaded and trained with it.
            estimator = self.log_det_estimator
            shard = estimator.shard if isinstance(estimator, PowerSeries | RussianRoulette) else Shard()
            learned = VariationalDequantisation(self.image_shape, levels=self.grey_levels, shard=shard)
            chain.add_module("dequantisation", learned)
        return chain

    def dequantised(self, bijection: Composed, *, low: float = -0.5) -> Dequantised:
        """Return the distribution of images of whole values that the bijection, base and dequantisation make.

        Args:
            bijection: What ``build`` made.
            low: Where the interval of the flow's inputs begins.
        """
        return whole_valued(self.distribution(bijection), levels=self.grey_levels, low=low)


def whole_valued(flow: Flow, *, levels: int, low: float = -0.5) -> Dequantised:
    """Return the distribution of whole grey levels that a flow over images makes, with its noise if that is learned.

    Args:
        flow: What an :class:`ImageFlowConfig` describes; learned noise is kept in its bijection.
        levels: Number of grey levels.
        low: Where the interval of the flow's inputs begins.
    """
    learned = dict(flow.bijection.named_children()).get("dequantisation")
    assert learned is None or isinstance(learned, Dequantisation)
    return Dequantised(flow, learned, levels=levels, low=low)
