"""What a stored flow over images is built from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from invattn.bijections import Composed
from invattn.checkpoints.flow_config import FlowConfig
from invattn.flows import Flow, ImageArchitecture, StandardNormal
from invattn.logdet import LogDetEstimator
from invattn.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class ImageFlowConfig(ImageArchitecture, FlowConfig):
    """A multi-scale flow over images with a standard normal base; see :class:`invattn.flows.MultiscaleIResNet`.

    Attributes:
        solver: How residual blocks are inverted; None is the default.
    """

    model: ClassVar[str] = "multiscale_iresnet"

    solver: Solver | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.image_shape

    def build_with(self, log_det_estimator: LogDetEstimator | None) -> Composed:
        options = {entry.name: getattr(self, entry.name) for entry in fields(ImageArchitecture)}
        return ImageArchitecture(**options).bijection(solver=self.solver, log_det_estimator=log_det_estimator)

    def distribution(self, bijection: Composed) -> Flow:
        return Flow(bijection, StandardNormal(bijection.output_shape(self.image_shape)))
