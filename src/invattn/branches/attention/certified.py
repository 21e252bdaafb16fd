"""Attention with a proven Lipschitz bound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.branches.attention.heads import join_heads, split_heads
from invattn.branches.attention.masks import RelativePositionLogits, Visibility
from invattn.branches.attention.rules import AttentionRule, TheoremR
from invattn.branches.attention.scores import Score
from invattn.branches.base import Branch
from invattn.branches.context import make_shift, shifted, shifts_of, split_shift
from invattn.branches.mean_shift import start_as_shift
from invattn.functional import Response, attend, response_weights, spectral_norm, squash
from invattn.lipschitz import ROUNDING, LipschitzBound, output_constant


class CertifiedAttention(Branch):
    """Row-normalised attention of squashed queries, keys and values with Lip(g) <= c.

    g(x)_i = W_L sum_j P_ij sigma(W_V x_j + b_V) + b_L,   P_i = softmax_j(log phi(alpha s_ij) + position logits),
    alpha from the rule,   W_L scaled by min(1, c / bound).

    Args:
        score: The score, which gives bounded factors and their sensitivity.
        channels: C.
        response: A positive kernel with a bound of (log phi)', row-normalised.
        lipschitz: c, the bound to hold.
        num_heads: H; must divide C.
        rule: What bounds a head and scales its logits; None is Theorem R, with alpha = 2 |W_V| / sensitivity of s.
        visibility: What each query may see.
        position_logits: Learned logits by relative position, or None.
        context_channels: K of a context (B, K), see :meth:`Branch.given`; it moves the tokens that queries and keys
            see, the values before they are squashed, and b_L. None for no context.

    Raises:
        ValueError: If the response is not row-normalised or its kernel has no bound.

    References:
        Theorems R and H of docs/theory.md; Zha et al. 2021, Eq. 5 (the form), Theorem 1 (the other rule).
    """

    def __init__(
        self,
        *,
        score: Score,
        channels: int,
        response: Response,
        lipschitz: float = 0.9,
        num_heads: int = 1,
        rule: AttentionRule | None = None,
        visibility: Visibility | None = None,
        position_logits: RelativePositionLogits | None = None,
        context_channels: int | None = None,
    ) -> None:
        super().__init__()
        kappa = response.kernel.kappa
        if (
            response.normalize != "row"
            or response.weight_sum != 1
            or kappa is None
            or response.kernel.log_value is None
        ):
            raise ValueError(
                "a certificate needs row normalisation, sum 1, and one of the kernels exp, elu+1, softplus."
            )
        if response.additive and response.kernel.name == "exp":
            raise ValueError("concatenation with exp cancels the query in a row softmax. Use elu+1 or softplus.")
        if not 0 < lipschitz < 1:
            raise ValueError(f"lipschitz must lie strictly between 0 and 1; got {lipschitz}.")
        self.channels = channels
        self.num_heads = num_heads
        self.lipschitz = lipschitz
        self.rule: AttentionRule = TheoremR() if rule is None else rule
        self.response = response
        self.kappa = kappa
        self.score = score
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.visibility = Visibility() if visibility is None else visibility
        self.position_logits = position_logits
        self.context = make_shift(context_channels, (channels, channels, channels))

    @property
    def kind(self) -> str:
        return f"{self.score.kind} attention"

    @property
    def certified(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        seen, inner, outer = self._shifts(x)
        query, key, scale, bias, mask = self._factors(shifted(x, seen))
        value = squash(split_heads(shifted(self.value(x), inner), self.num_heads))
        mixed = attend(query, key, value, response=self.response, logit_bias=bias, mask=mask)
        return shifted(F.linear(join_heads(mixed), self.output.weight * scale, self.output.bias), outer)

    def attention_weights(self, x: Tensor) -> Tensor:
        self.check_input(x)
        query, key, _, bias, mask = self._factors(shifted(x, self._shifts(x)[0]))
        return response_weights(query, key, response=self.response, logit_bias=bias, mask=mask)

    def start_as_mean_shift(self) -> None:
        """Set the weights as :func:`start_as_shift` says, and the score as a similarity."""
        start_as_shift(self.value, self.output)
        self.score.start_as_similarity()

    def lipschitz_bound(self) -> LipschitzBound:
        """Return |W_L| times the rule's constant from the weights as forward multiplies them, in float64."""
        with torch.no_grad():
            alpha, scale = (number.to(self.output.weight.dtype) for number in self._scales())
            value_norm, response_norm = self._head_norms(alpha.double())
            heads = self.rule.head_constant(value_norm, response_norm)
            output = self.output.weight * scale
            bound = (1 + ROUNDING) * output_constant(output, heads)
            factors = {"output_norm": float(spectral_norm(output)), "rounding": 1 + ROUNDING}
            texts = []
            for h, numbers in enumerate(zip(value_norm.tolist(), response_norm.tolist(), strict=True)):
                own = self.rule.factors(*numbers) | {"alpha": float(alpha[h]), "F": float(heads[h])}
                factors |= {f"head_{h}.{name}": number for name, number in own.items()}
                texts.append(self.rule.describe(*numbers, float(heads[h])))
        return LipschitzBound(
            value=float(bound),
            norm="inf,2",
            derivation=(
                f"{self.rule.name}, kernel {self.response.kernel.name}: |W_L| = {factors['output_norm']:.6g}, "
                f"heads: {', '.join(texts)}, rounding margin {ROUNDING:g}"
            ),
            factors=factors,
        )

    def _shifts(self, x: Tensor) -> Sequence[Tensor | None]:
        """Return what the context adds to the tokens that queries and keys see, to the values, and to b_L."""
        return split_shift(shifts_of(self.context, x), (self.channels, self.channels, self.channels))

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return scaled query and key factors, the scale of W_L, position logits and mask."""
        alpha, scale = (number.to(x.dtype) for number in self._scales())
        query, key = self.score.bounded(x)
        query = query * alpha[:, None, None]
        if self.score.additive:
            key = key * alpha[:, None, None]
        bias = None if self.position_logits is None else self.position_logits(x.shape[-2])
        return query, key, scale, bias, self.visibility(x.shape[-2], x.device)

    def _scales(self) -> tuple[Tensor, Tensor]:
        """Return the logit scales alpha (H,) and the scale of W_L, float64, differentiable in the weights."""
        unit_value, unit_response = self._head_norms(None)
        tiny = torch.finfo(unit_value.dtype).eps
        alpha = self.rule.logit_scale(unit_value, unit_response)
        heads = self.rule.head_constant(unit_value, alpha * unit_response)
        bound = (1 + 2 * ROUNDING) * output_constant(self.output.weight, heads)
        return alpha, torch.clamp(self.lipschitz / bound.clamp_min(tiny), max=1.0)

    def _head_norms(self, alpha: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return V and R per head, (H,) each; R at alpha = 1 where alpha is None."""
        value = spectral_norm(self.value.weight.reshape(self.num_heads, -1, self.channels))
        response = self.kappa * self.rule.sensitivity(self.score)
        return value, response if alpha is None else alpha * response

    def extra_repr(self) -> str:
        text = f"channels={self.channels}, num_heads={self.num_heads}, lipschitz={self.lipschitz}"
        return f"{text}, kernel={self.response.kernel.name!r}"
