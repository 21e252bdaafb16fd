"""The one function that makes a block."""

from __future__ import annotations

from torch import Tensor

from invattn._errors import check_name
from invattn.bijections import Bijection, Block, ImageLayout, ResidualBijection
from invattn.bijections.base import as_block
from invattn.logdet import LogDetEstimator
from invattn.recipes.authors_weights import translate_on_load
from invattn.recipes.base import BlockShape, Recipe
from invattn.recipes.certified import Certified
from invattn.recipes.relaxed import Paper, Released, ReleasedGenerative, Unconstrained
from invattn.solvers import InverseGradient, Solver

_RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe for recipe in (Certified, Paper, Released, ReleasedGenerative, Unconstrained)
}

RECIPES: tuple[str, ...] = tuple(_RECIPES)
"""The names of the recipes."""


def invertible_attention(
    channels: int,
    *,
    kind: str = "embedded_gaussian",
    recipe: str | Recipe = "certified",
    lipschitz: float = 0.9,
    key_channels: int | None = None,
    num_heads: int = 1,
    layout: str = "image",
    solver: Solver | None = None,
    log_det_estimator: LogDetEstimator | None = None,
    inverse_gradient: InverseGradient | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    context_channels: int = 0,
    backend: str | None = None,
) -> Block:
    """Make an attention block x + g(x) that can be run backwards.

    Args:
        channels: C, the channels of a token or pixel.
        kind: gaussian, embedded_gaussian, dot_product, concatenation, or pointwise (the control without mixing).
        recipe: certified (invertible for every input, proven), paper, released, released_generative, unconstrained, or
            a recipe object of :mod:`invattn.recipes` (:class:`invattn.recipes.Strict` has no name here).
        lipschitz: c. certified and Strict: the proven bound of Lip(g), strictly between 0 and 1. Others: the
            coefficient of the constrained maps.
        key_channels: Channels of a query and of a key, per head; None is channels // 4, at least 1.
        num_heads: H, a divisor of ``channels``; values have ``channels`` channels in all.
        layout: image for (B, C, H, W), tokens for (B, N, C).
        solver: How to invert; None is :class:`invattn.solvers.Adaptive`.
        log_det_estimator: How to get log|det(I + J)|; None is :class:`invattn.logdet.PowerSeries`.
        inverse_gradient: How gradients go through the inverse; None is :class:`invattn.solvers.ImplicitAdjoint`.
        mask: Boolean (N, N), True where query i may see key j; the same in both directions of the map.
        causal: Token i sees tokens 0 ... i; strictly so where rows are normalised, see :class:`BlockShape`.
        context_channels: K of a context (B, K), see ``block.given(context)``; certified only. 0: none.
        backend: dense, fused, streamed or sorted; None: the fastest for each input (``block.explain(x)`` says why).

    Raises:
        ValueError: If a name is unknown (the nearest is suggested) or a number out of range.

    References:
        Zha et al. 2021; Theorem R of docs/theory.md.

    Example:
        >>> import torch, invattn
        >>> block = invattn.invertible_attention(12, kind="concatenation")
        >>> x = torch.randn(2, 12, 8, 8)
        >>> bool((block.inverse(block(x)) - x).abs().max() < 1e-4)
        True
    """
    shape = BlockShape(kind, channels, key_channels, num_heads, lipschitz, mask, causal, context_channels, backend)
    return _build(make_recipe(recipe), shape, layout, solver, log_det_estimator, inverse_gradient)


def _build(
    recipe: Recipe,
    shape: BlockShape,
    layout: str,
    solver: Solver | None,
    log_det_estimator: LogDetEstimator | None,
    inverse_gradient: InverseGradient | None,
) -> Block:
    check_name(layout, ("image", "tokens"), what="layout")
    if shape.context_channels and not recipe.takes_context:
        raise ValueError(f"blocks of the recipe {recipe.name!r} take no context. Use recipe='certified'.")
    block = ResidualBijection(
        recipe.build(shape), solver=solver, log_det_estimator=log_det_estimator, inverse_gradient=inverse_gradient
    )
    made = ImageLayout(block) if layout == "image" else block
    if isinstance(recipe, Released | ReleasedGenerative):
        made.register_load_state_dict_pre_hook(translate_on_load)  # type: ignore[no-untyped-call]
    return made


def make_recipe(recipe: str | Recipe) -> Recipe:
    """Return the recipe of a name, with its defaults; an object is returned as it is.

    Raises:
        ValueError: If the name is unknown; the nearest is suggested.
    """
    if isinstance(recipe, str):
        return _RECIPES[check_name(recipe, RECIPES, what="recipe")]()
    return recipe


def attention_map(block: Bijection, x: Tensor) -> Tensor:
    """Return the dense attention map of a block, for pictures and small N.

    Args:
        block: A block made by :func:`invertible_attention`.
        x: Its input, (B, C, H, W) or (B, N, C).

    Returns:
        Weights with shape (B, heads, N, N): row i holds what output token i takes from each token.

    Raises:
        ValueError: If the block has no attention, or x another shape.
    """
    tokens = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
    return as_block(block).branch.attention_weights(tokens)
