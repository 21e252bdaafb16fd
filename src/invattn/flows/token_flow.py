"""A flow over sets and sequences of tokens: attention and pointwise maps by turns."""

from __future__ import annotations

from collections.abc import Sequence

from invattn._errors import check_name
from invattn.bijections import ActNorm, Bijection, Composed, ResidualBijection
from invattn.branches import CertifiedMLP, CertifiedPooling
from invattn.flows.flow import FLOW_SOLVER
from invattn.logdet import LogDetEstimator, TokenwiseExact
from invattn.recipes import KINDS, Certified, Recipe, invertible_attention
from invattn.solvers import Solver

TOKEN_MIXERS = (*KINDS, "uniform", "none")
"""What may stand between the tokens: an attention kind, or the controls pointwise (P = I), uniform (P = 1/N), none."""

_TOKENWISE_CHANNELS = 8  # up to here C vector-Jacobian products cost less than a power series


def token_flow(
    channels: int,
    *,
    attention: str = "embedded_gaussian",
    blocks: int = 4,
    attention_layers: int = 3,
    hidden_channels: Sequence[int] = (32, 32),
    recipe: Recipe | None = None,
    lipschitz: float = 0.99,
    context_channels: int | None = None,
    solver: Solver | None = None,
    log_det_estimator: LogDetEstimator | None = None,
) -> Composed:
    """Make f = a chain of ``blocks`` times (some attention, CertifiedMLP), with ActNorm before each map and at the end.

    The tokens are exchangeable unless the recipe has position logits: f(P x) = P f(x) for a permutation P, so that
    with a base that does not depend on the order neither does the density. Attention is the only path between
    tokens. Every map but ActNorm is a residual block x + g(x); ActNorm is started from data by
    :func:`invattn.bijections.initialize`.

    Args:
        channels: C, the channels of a token; queries and keys have as many.
        attention: A kind of :data:`invattn.KINDS`; ``uniform`` for pooling with equal weights, ``none`` for pointwise
            maps alone (both are controls and always certified).
        blocks: How often attention and MLP are repeated.
        attention_layers: Attention blocks before each MLP.
        hidden_channels: Of each CertifiedMLP.
        recipe: Form of the attention; None is ``Certified(mean_shift=True)``.
        lipschitz: c of every residual block.
        context_channels: K of a context (B, K) that all residual blocks depend on, ``given(context)``; None for none.
        solver: How they are inverted; None is :data:`invattn.flows.FLOW_SOLVER`.
        log_det_estimator: Of the attention blocks, and of the others where C is above 8 (else
            :class:`invattn.logdet.TokenwiseExact`); None is the library's default.

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
    check_name(attention, TOKEN_MIXERS, what="attention of a token flow")
    if blocks < 1 or attention_layers < 1:
        raise ValueError(f"blocks and attention_layers must be at least 1; got {blocks} and {attention_layers}.")
    recipe = Certified(mean_shift=True) if recipe is None else recipe
    solver = FLOW_SOLVER if solver is None else solver
    tokenwise = TokenwiseExact() if channels <= _TOKENWISE_CHANNELS else log_det_estimator

    def mixer() -> Bijection:
        if attention == "uniform":
            pooling = CertifiedPooling(channels=channels, lipschitz=lipschitz, context_channels=context_channels)
            if isinstance(recipe, Certified) and recipe.mean_shift:
                pooling.start_as_mean_shift()
            return ResidualBijection(pooling, solver=solver, log_det_estimator=log_det_estimator)
        return invertible_attention(
            channels,
            kind=attention,
            recipe=recipe,
            lipschitz=lipschitz,
            key_channels=channels,
            layout="tokens",
            solver=solver,
            log_det_estimator=tokenwise if attention == "pointwise" else log_det_estimator,
            context_channels=context_channels,
        )

    parts: list[Bijection] = []
    for _ in range(blocks):
        for _ in range(0 if attention == "none" else attention_layers):
            parts += [ActNorm(channels), mixer()]
        mlp = CertifiedMLP(
            channels=channels,
            hidden_channels=tuple(hidden_channels),
            lipschitz=lipschitz,
            context_channels=context_channels,
        )
        parts += [ActNorm(channels), ResidualBijection(mlp, solver=solver, log_det_estimator=tokenwise)]
    return Composed([*parts, ActNorm(channels)])
