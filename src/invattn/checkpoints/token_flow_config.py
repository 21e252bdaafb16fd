"""What a stored token flow is built from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from invattn._errors import DataError
from invattn.bijections import Composed
from invattn.checkpoints.objects import describe, restore_recipe, restore_solver
from invattn.checkpoints.stored_config import StoredConfig
from invattn.flows import Flow, StandardNormal, token_flow
from invattn.logdet import LogDetEstimator
from invattn.recipes import Certified, Recipe
from invattn.solvers import Solver

MODEL = "token_flow"


@dataclass(frozen=True, kw_only=True)
class TokenFlowConfig(StoredConfig):
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
        solver: How they are inverted; None is the default.
    """

    tokens: int
    channels: int
    attention: str = "embedded_gaussian"
    blocks: int = 4
    attention_layers: int = 3
    hidden_channels: tuple[int, ...] = (32, 32)
    recipe: Recipe = field(default_factory=lambda: Certified(mean_shift=True))
    lipschitz: float = 0.99
    solver: Solver | None = None

    def build(self) -> Composed:
        return self.build_with(None)

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
        return Flow(bijection, StandardNormal((self.tokens, self.channels)))

    def to_json(self) -> dict[str, Any]:
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        solver = None if self.solver is None else describe(self.solver)
        return {"model": MODEL} | plain | {"recipe": describe(self.recipe), "solver": solver}

    @classmethod
    def from_json(cls, value: Any) -> TokenFlowConfig:
        """Rebuild a configuration.

        Raises:
            DataError: If keys are missing or unknown, or name what this version does not have.
        """
        known = {"model"} | {entry.name for entry in fields(cls)}
        if not isinstance(value, dict) or set(value) != known or value["model"] != MODEL:
            raise DataError(f"config.json must hold exactly these keys: {', '.join(sorted(known))}.")
        plain = {name: part for name, part in value.items() if name != "model"}
        solver = None if value["solver"] is None else restore_solver(value["solver"])
        try:
            hidden = tuple(int(width) for width in value["hidden_channels"])
        except (TypeError, ValueError):
            raise DataError("hidden_channels of config.json must be a list of numbers.") from None
        return cls(**{**plain, "recipe": restore_recipe(value["recipe"]), "solver": solver, "hidden_channels": hidden})
