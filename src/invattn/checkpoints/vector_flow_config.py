"""What a stored flow over vectors is built from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from invattn.bijections import Composed
from invattn.checkpoints.flow_config import FlowConfig
from invattn.flows import Flow, StandardNormal, VectorArchitecture
from invattn.logdet import LogDetEstimator
from invattn.solvers import Solver


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
