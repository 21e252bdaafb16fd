"""What a stored flow over images is built from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from invattn._names import check_name
from invattn.bijections import Composed
from invattn.checkpoints.flow_config import FlowConfig
from invattn.flows import (
    Dequantisation,
    Dequantised,
    Flow,
    ImageArchitecture,
    StandardNormal,
    VariationalDequantisation,
)
from invattn.logdet import WHOLE, LogDetEstimator, PowerSeries, RussianRoulette
from invattn.solvers import Solver

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
