"""The recipe with a proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from invattn._kinds import KINDS
from invattn.branches import (
    AttentionRule,
    Branch,
    CertifiedAttention,
    CertifiedPointwise,
    RelativePositionLogits,
    Theorem1,
    TheoremR,
    Visibility,
)
from invattn.functional import Response, get_kernel
from invattn.recipes.base import BlockShape, Recipe


@dataclass(frozen=True)
class Certified(Recipe):
    """Squashed queries, keys and values, rows that sum to 1, exact norms: Lip(g) <= c for every input.

    Attributes:
        phi: Response kernel: exp, elu+1 or softplus; None is exp for the Gaussian kinds and elu+1 for the others.
        ratio: R / V, what the response may take of the budget.
        position_grid: Sides of a grid of tokens, (N,) or (H, W), for learned relative position logits; None: none.
        self_logit: Their initial value at i = j.
        mean_shift: Start the weights so that each token moves against the mean of the tokens like it, see
            :func:`invattn.branches.mlp.start_as_shift`; else at random. Scores of the concatenation kind start
            at random in any case, and so does all of the pointwise control, which would start all but singular.

    References:
        Theorems R and H of docs/theory.md.
    """

    name: ClassVar[str] = "certified"
    takes_context: ClassVar[bool] = True

    phi: str | None = None
    ratio: float = 2.0
    position_grid: tuple[int, ...] | None = None
    self_logit: float = 0.0
    mean_shift: bool = False

    def build(self, shape: BlockShape) -> Branch:
        if shape.kind == "pointwise":
            return CertifiedPointwise(
                channels=shape.channels, lipschitz=shape.lipschitz, context_channels=shape.context_channels
            )
        positions = None
        if self.position_grid is not None:
            positions = RelativePositionLogits(
                grid=self.position_grid, num_heads=shape.num_heads, self_logit=self.self_logit
            )
        branch = _attention(shape, self.phi, TheoremR(ratio=self.ratio), positions)
        if self.mean_shift:
            branch.start_as_mean_shift()
        return branch


@dataclass(frozen=True)
class Strict(Recipe):
    """Lip(W_L) <= c / (mu_R c_F + mu_F c_R), with q, k, v squashed so that conditions 1-4 hold: for comparison.

    It is given as an object, and its name, which model folders hold, is none of :data:`invattn.RECIPES`: those are what
    commands run for "all", and the paper has no measurement of this form to stand beside.

    The paper proves Theorem 1 and then relaxes it, because "the expressive power of such model is severely limited"
    (Sec. 2.4). This is the form it left: invertible for every input, like :class:`Certified`, with a smaller W_L.
    Differences from the print, all needed for the conditions to hold:

    1. The norm is max_i |x_i|_2 and rows sum to 1, so mu_R = 1 and mu_F = 1. In the paper's norms (L1, L2, Frobenius)
       the conditions hold only with constants that grow with the number of tokens: docs/theory.md has them.
    2. Values are squashed: a linear F has no mu_F (condition 4). So are queries and keys of the product kinds, which
       gives c_R = kappa (|W_Q| + |W_K|) (condition 2; Gaussian: 2; concatenation, unsquashed: kappa (a + b)).
    3. k = 1 in Eq. 5 and 6: all four numbers are in one norm, and nothing is converted.
    4. Norms are bounds, not power iteration. Several heads join by Theorem H.

    Attributes:
        phi: Response kernel: exp, elu+1 or softplus; None is exp for the Gaussian kinds and elu+1 for the others.

    References:
        Zha et al. 2021, Theorem 1, Eq. 5, 6, Sec. 2.4; docs/theory.md, "The paper's Theorem 1".
    """

    name: ClassVar[str] = "strict"

    phi: str | None = None

    def build(self, shape: BlockShape) -> Branch:
        if shape.kind == "pointwise":
            return CertifiedPointwise(channels=shape.channels, lipschitz=shape.lipschitz)
        return _attention(shape, self.phi, Theorem1())


def _attention(
    shape: BlockShape, phi: str | None, rule: AttentionRule, positions: RelativePositionLogits | None = None
) -> CertifiedAttention:
    score = shape.make_score()
    kernel = get_kernel(phi or KINDS[shape.kind].kernel)
    return CertifiedAttention(
        score=score,
        channels=shape.channels,
        response=Response(kernel, additive=score.additive, backend=shape.backend),
        lipschitz=shape.lipschitz,
        num_heads=shape.num_heads,
        rule=rule,
        visibility=Visibility(mask=shape.mask, causal=shape.causal),
        position_logits=positions,
        context_channels=shape.context_channels,
    )
