"""A flow over sets and sequences of tokens: attention and pointwise maps by turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from invattn._errors import check_name
from invattn.bijections import ActNorm, Bijection, Composed, ResidualBijection
from invattn.branches import Branch, CertifiedMLP, CertifiedPooling
from invattn.flows.architecture import check_conditions, settle, whole_numbers
from invattn.flows.flow import FLOW_SOLVER
from invattn.logdet import LogDetEstimator, TokenwiseExact
from invattn.recipes import KINDS, Certified, Recipe, invertible_attention, make_recipe
from invattn.solvers import Solver

TOKEN_MIXERS = (*KINDS, "uniform", "none")
"""What may stand between the tokens: an attention kind, or the controls pointwise (P = I), uniform (P = 1/N), none."""

_TOKENWISE_CHANNELS = 8  # up to here C vector-Jacobian products cost less than a power series


@dataclass(frozen=True)
class TokenArchitecture:
    """The options of :func:`invattn.flows.token_flow`.

    Attributes:
        channels: C, the channels of a token; queries and keys have as many.
        attention: A kind of :data:`invattn.KINDS`; ``uniform`` for pooling with equal weights, ``none`` for pointwise
            maps alone (both are controls and always certified).
        blocks: How often attention and MLP are repeated.
        attention_layers: Attention blocks before each MLP.
        hidden_channels: Of each CertifiedMLP.
        recipe: Form of the attention: a name or an object; None is ``Certified(mean_shift=True)``.
        lipschitz: c of every residual block. Clusters of points are an order of magnitude narrower than the data, and a
            block shortens no direction to less than 1 - c of its length: few blocks reach there at 0.99. In the worst
            case the inverse of one takes 1,833 plain steps to a relative 1e-6 (569 at the 0.97 of other flows).
        context_channels: K of a context (B, K) that all residual blocks depend on, ``given(context)``; 0: none.
        solver: How they are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
        log_det_estimator: Of the attention blocks, and of the others where C is above 8 (else
            :class:`invattn.logdet.TokenwiseExact`); None is the library's default.

    Raises:
        ValueError: If a name is unknown or a number out of range.
    """

    channels: int
    _: KW_ONLY
    attention: str = "embedded_gaussian"
    blocks: int = 4
    attention_layers: int = 3
    hidden_channels: Sequence[int] = (32, 32)
    recipe: str | Recipe | None = None
    lipschitz: float = 0.99
    context_channels: int = 0
    solver: Solver | None = None
    log_det_estimator: LogDetEstimator | None = None

    def __post_init__(self) -> None:
        check_name(self.attention, TOKEN_MIXERS, what="attention of a token flow")
        layers = (self.blocks, self.attention_layers)
        if min(layers) < 1:
            raise ValueError(f"blocks and attention_layers must be at least 1; got {layers[0]} and {layers[1]}.")
        settle(self, hidden_channels=whole_numbers(self.hidden_channels, name="hidden_channels", fewest=0))
        settle(self, recipe=Certified(mean_shift=True) if self.recipe is None else make_recipe(self.recipe))
        check_conditions(0, self.context_channels)

    def bijection(self) -> Composed:
        """Return a new bijection of tokens (B, N, C), any N."""
        parts: list[Bijection] = []
        for _ in range(self.blocks):
            for _ in range(0 if self.attention == "none" else self.attention_layers):
                parts += [ActNorm(self.channels), self._mixer()]
            mlp = CertifiedMLP(
                channels=self.channels,
                hidden_channels=self.hidden_channels,
                lipschitz=self.lipschitz,
                context_channels=self.context_channels,
            )
            parts += [ActNorm(self.channels), self._residual(mlp, self._tokenwise)]
        return Composed([*parts, ActNorm(self.channels)])

    @property
    def _tokenwise(self) -> LogDetEstimator | None:
        """The estimator of blocks that map each token by itself."""
        return TokenwiseExact() if self.channels <= _TOKENWISE_CHANNELS else self.log_det_estimator

    def _residual(self, branch: Branch, estimator: LogDetEstimator | None) -> Bijection:
        return ResidualBijection(branch, solver=self.solver or FLOW_SOLVER, log_det_estimator=estimator)

    def _mixer(self) -> Bijection:
        recipe = self.recipe
        assert isinstance(recipe, Recipe), "settled when it was made"
        if self.attention == "uniform":
            pooling = CertifiedPooling(
                channels=self.channels, lipschitz=self.lipschitz, context_channels=self.context_channels
            )
            if isinstance(recipe, Certified) and recipe.mean_shift:
                pooling.start_as_mean_shift()
            return self._residual(pooling, self.log_det_estimator)
        return invertible_attention(
            self.channels,
            kind=self.attention,
            recipe=recipe,
            lipschitz=self.lipschitz,
            key_channels=self.channels,
            layout="tokens",
            solver=self.solver or FLOW_SOLVER,
            log_det_estimator=self._tokenwise if self.attention == "pointwise" else self.log_det_estimator,
            context_channels=self.context_channels,
        )


def token_flow(channels: int, **options: Any) -> Composed:
    """Make f = a chain of ``blocks`` times (some attention, CertifiedMLP), with ActNorm before each map and at the end.

    It is a bijection for tokens of any number N, not yet a distribution as :class:`invattn.flows.MultiscaleIResNet` is:
    a base of one N makes it that, ``Flow(token_flow(2), StandardNormal((32, 2)))``.

    The tokens are exchangeable unless the recipe has position logits: f(P x) = P f(x) for a permutation P, so that
    with a base that does not depend on the order neither does the density. Attention is the only path between
    tokens. Every map but ActNorm is a residual block x + g(x); ActNorm is started from data by
    :func:`invattn.bijections.initialize`.

    Args:
        channels: C, the channels of a token; queries and keys have as many.
        **options: The other fields of :class:`TokenArchitecture`, by name.

    Returns:
        A bijection of tokens (B, N, C), any N.

    Raises:
        ValueError: If a name is unknown or a number out of range.

    Example:
        >>> import torch
        >>> from invattn.flows import Flow, StandardNormal, token_flow
        >>> flow = Flow(token_flow(2, blocks=2), StandardNormal((32, 2)))
        >>> flow.log_prob(torch.randn(5, 32, 2)).shape
        torch.Size([5])
    """
    return TokenArchitecture(channels, **options).bijection()
