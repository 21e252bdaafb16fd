"""Attention with a proven Lipschitz bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invattn.branches.attention.masks import RelativePositionLogits, Visibility, join_heads, split_heads
from invattn.branches.attention.rules import AttentionRule, TheoremR
from invattn.branches.attention.scores import Score
from invattn.branches.scaled import ScaledBranch, make_shift, shifted, shifts_of, start_as_shift
from invattn.functional import Choice, Response, attend, explain, response_weights, spectral_norm, squash
from invattn.functional.dispatch import check_backend
from invattn.lipschitz import ROUNDING, LipschitzBound, output_constant


class CertifiedAttention(ScaledBranch):
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
            see, the values before they are squashed, and b_L. 0: none.

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
        context_channels: int = 0,
    ) -> None:
        super().__init__(channels=channels, lipschitz=lipschitz)
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
        self.num_heads = num_heads
        self.rule: AttentionRule = TheoremR() if rule is None else rule
        self.response = response
        self.kappa = kappa
        self.score = score
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.visibility = Visibility() if visibility is None else visibility
        self.position_logits = position_logits
        self.context = make_shift(context_channels, (channels, channels, channels))
        check_backend(
            response,
            masked=self.visibility.mask is not None,
            causal=self.visibility.causal,
            biased=position_logits is not None,
        )

    @property
    def kind(self) -> str:
        return f"{self.score.kind} attention"

    def attention_weights(self, x: Tensor) -> Tensor:
        seen, *_ = self._split(shifts_of(self.context, x))
        query, key, bias = self._factors(x, seen, self._scaled(self._norms())[0])
        mask = self.visibility(x.shape[-2], x.device)
        return response_weights(query, key, response=self.response, logit_bias=bias, mask=mask)

    def explain(self, x: Tensor) -> Choice:
        seen, inner, _ = self._split(shifts_of(self.context, x))
        return explain(**self._attended(x, seen, inner, self._scaled(self._norms())[0]))

    def _apply_scaled(self, x: Tensor, shift: Tensor | None = None, *, scaled: tuple[Tensor, ...]) -> Tensor:
        alpha, output = scaled
        seen, inner, outer = (None, None, None) if shift is None else self._split(shift)
        mixed = attend(**self._attended(x, seen, inner, alpha))
        image = F.linear(join_heads(mixed), output, self.output.bias)
        return image if outer is None else shifted(image, outer)

    def _attended(self, x: Tensor, seen: Tensor | None, inner: Tensor | None, alpha: Tensor) -> dict[str, Any]:
        """Return the arguments of :func:`attend` and :func:`explain` for tokens x."""
        query, key, bias = self._factors(x, seen, alpha)
        value = self.value(x)
        value = squash(split_heads(value if inner is None else shifted(value, inner), self.num_heads))
        visibility = self.visibility
        return {
            "query": query,
            "key": key,
            "value": value,
            "response": self.response,
            "logit_bias": bias,
            "mask": visibility.fixed(x.shape[-2]),
            "causal": visibility.causal,
        }

    def start_as_mean_shift(self) -> None:
        """Set the weights as :func:`start_as_shift` says, and the score as a similarity."""
        start_as_shift(self.value, self.output)
        self.score.start_as_similarity()

    def _bound(self, norms: tuple[Tensor, ...], scaled: tuple[Tensor, ...]) -> LipschitzBound:
        """Return the bound of g with these logit scales and this W_L, from V and R at alpha = 1."""
        value_norm, unit_response = norms
        alpha, output = scaled[0].to(self.output.weight.dtype), scaled[1]
        response_norm = alpha.double() * unit_response
        heads = self.rule.head_constant(value_norm, response_norm)
        output_norm = spectral_norm(output)
        bound = (1 + ROUNDING) * output_constant(output, heads, norm=output_norm)
        factors = {"output_norm": float(output_norm), "rounding": 1 + ROUNDING}
        texts = []
        for h, numbers in enumerate(zip(value_norm.tolist(), response_norm.tolist(), strict=True)):
            own = self.rule.factors(*numbers) | {"alpha": float(alpha[h]), "F": float(heads[h])}
            factors |= {f"head_{h}.{name}": number for name, number in own.items()}
            texts.append(self.rule.describe(*numbers, float(heads[h])))
        return LipschitzBound(
            value=float(bound),
            norm=self.certificate_norm,
            derivation=(
                f"{self.rule.name}, kernel {self.response.kernel.name}: |W_L| = {factors['output_norm']:.6g}, "
                f"heads: {', '.join(texts)}, rounding margin {ROUNDING:g}"
            ),
            factors=factors,
        )

    def _split(self, shift: Tensor | None) -> Sequence[Tensor | None]:
        """Return what the context adds to the tokens that queries and keys see, to the values, and to b_L."""
        return (None, None, None) if shift is None else torch.split(shift, self.channels, dim=1)

    def _factors(self, x: Tensor, seen: Tensor | None, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return scaled query and key factors, and position logits."""
        self.check_input(x)
        score = self.score
        query, key = score.bounded(x if seen is None else shifted(x, seen))
        alpha = alpha.to(x.dtype)[:, None, None]
        query = query * alpha
        if score.additive:
            key = key * alpha
        return query, key, None if self.position_logits is None else self.position_logits(x.shape[-2])

    def _scaled(self, norms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the logit scales alpha (H,), float64, and the scaled W_L, differentiable in the weights."""
        value, unit_response = norms
        alpha = self.rule.logit_scale(value, unit_response)
        heads = self.rule.head_constant(value, alpha * unit_response)
        bound = (1 + 2 * ROUNDING) * output_constant(self.output.weight, heads)
        scale = torch.clamp(self.lipschitz / bound.clamp_min(torch.finfo(value.dtype).eps), max=1.0)
        return alpha, self.output.weight * scale.to(self.output.weight.dtype)

    def _norms(self) -> tuple[Tensor, ...]:
        """Return V and, at alpha = 1, R per head, (H,) each, float64."""
        value = spectral_norm(self.value.weight.reshape(self.num_heads, -1, self.channels))
        return value, self.kappa * self.rule.sensitivity(self.score)

    def extra_repr(self) -> str:
        text = f"channels={self.channels}, num_heads={self.num_heads}, lipschitz={self.lipschitz}"
        return f"{text}, kernel={self.response.kernel.name!r}"
