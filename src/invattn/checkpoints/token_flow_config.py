"""What a stored token flow is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from invattn.bijections import Composed
from invattn.checkpoints.flow_config import FlowConfig
from invattn.flows import Flow, StandardNormal, token_flow
from invattn.logdet import LogDetEstimator
from invattn.recipes import Certified, Recipe
from invattn.solvers import Solver


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
