"""The flow over vectors: points of the plane and rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from invattn.bijections import ActNorm, Bijection, Composed, Linear1x1, ResidualBijection, Whitening
from invattn.branches import CertifiedMLP
from invattn.flows.flow import FLOW_SOLVER, Flow, StandardNormal, check_conditions, with_classes
from invattn.lipschitz import make_activation
from invattn.logdet import LogDetEstimator, TokenwiseExact
from invattn.solvers import Solver

EXACT_VECTORS = 16
"""Up to here the whole Jacobian of a vector costs about what a power series does."""


@dataclass(frozen=True, kw_only=True)
class VectorArchitecture:
    """The options of :class:`invattn.flows.ResidualFlow`, where each is described.

    Raises:
        ValueError: If a name is unknown or a number out of range.
    """

    dimensions: int
    blocks: int = 16
    hidden_channels: tuple[int, ...] = (64, 64)
    lipschitz: float = 0.97
    activation: str = "lipswish"
    whitening: bool = False
    channel_mixing: bool = False
    classes: int = 0
    context_channels: int = 0

    def __post_init__(self) -> None:
        if self.dimensions < 1 or self.blocks < 1:
            raise ValueError(f"dimensions and blocks must be at least 1; got {self.dimensions} and {self.blocks}.")
        widths: object = self.hidden_channels  # of a file, where it may be anything
        if not isinstance(widths, tuple) or any(not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(f"hidden_channels must be numbers, all at least 1; got {widths!r}.")
        if not 0 < self.lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {self.lipschitz}.")
        make_activation(self.activation)
        check_conditions(self.classes, self.context_channels)

    def bijection(self, *, solver: Solver | None, log_det_estimator: LogDetEstimator | None) -> Composed:
        """Return a new bijection of vectors (B, d).

        Args:
            solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
            log_det_estimator: Of all residual blocks; None is exact up to 16 dimensions, else the library's default.
        """
        if log_det_estimator is None and self.dimensions <= EXACT_VECTORS:
            log_det_estimator = TokenwiseExact()
        solver = FLOW_SOLVER if solver is None else solver
        parts: list[Bijection] = [Whitening(self.dimensions)] if self.whitening else []
        for _ in range(self.blocks):
            parts.append(ActNorm(self.dimensions))
            if self.channel_mixing:
                parts.append(Linear1x1(self.dimensions))
            branch = CertifiedMLP(
                channels=self.dimensions,
                hidden_channels=self.hidden_channels,
                activation=self.activation,
                lipschitz=self.lipschitz,
                context_channels=self.context_channels or None,
            )
            parts.append(ResidualBijection(branch, solver=solver, log_det_estimator=log_det_estimator))
        return with_classes([*parts, ActNorm(self.dimensions)], (self.dimensions,), self.classes)


class ResidualFlow(Flow):
    """A residual flow over vectors (B, d): ActNorm and x + g(x) with a certified MLP g, by turns.

    Log-determinants are exact up to 16 dimensions. ActNorm and whitening start from data by
    :func:`invattn.bijections.initialize`. The base is a standard normal.

    Args:
        dimensions: d, the entries of one vector.
        blocks: Residual blocks.
        hidden_channels: Between the linear maps of each branch.
        lipschitz: c of every residual block.
        activation: Of each branch, see :data:`invattn.lipschitz.ACTIVATIONS`.
        whitening: Whether vectors are whitened first, by their covariance.
        channel_mixing: Whether an invertible linear map stands before every block.
        classes: Classes of the samples, each with a Gaussian prior of its own: ``flow.given(labels=y)``; 0: one prior.
        context_channels: K of the context of each sample that all blocks depend on: ``flow.given(context)``; 0: none.
        solver: How residual blocks are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
        log_det_estimator: Of all residual blocks; None is as above.

    Raises:
        ValueError: If a name is unknown or a number out of range.

    References:
        Behrmann et al. 2019; Chen et al. 2019.

    Example:
        >>> import torch
        >>> from invattn.flows import ResidualFlow
        >>> flow = ResidualFlow(2, blocks=4)
        >>> flow.log_prob(flow.sample((5,))).shape
        torch.Size([5])
    """

    def __init__(
        self,
        dimensions: int,
        *,
        blocks: int = 16,
        hidden_channels: Sequence[int] = (64, 64),
        lipschitz: float = 0.97,
        activation: str = "lipswish",
        whitening: bool = False,
        channel_mixing: bool = False,
        classes: int = 0,
        context_channels: int = 0,
        solver: Solver | None = None,
        log_det_estimator: LogDetEstimator | None = None,
    ) -> None:
        architecture = VectorArchitecture(
            dimensions=dimensions,
            blocks=blocks,
            hidden_channels=tuple(hidden_channels),
            lipschitz=lipschitz,
            activation=activation,
            whitening=whitening,
            channel_mixing=channel_mixing,
            classes=classes,
            context_channels=context_channels,
        )
        chain = architecture.bijection(solver=solver, log_det_estimator=log_det_estimator)
        super().__init__(chain, StandardNormal((dimensions,)))
        self.architecture = architecture
