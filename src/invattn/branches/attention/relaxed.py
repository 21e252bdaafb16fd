"""Attention without a proven bound: the paper's, the released and the non-invertible forms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from invattn.branches.attention.masks import Visibility, join_heads, split_heads
from invattn.branches.attention.scores import Score
from invattn.branches.base import Branch
from invattn.functional import Choice, Response, attend, explain, response_weights
from invattn.functional.dispatch import check_backend
from invattn.lipschitz.constrained import at_scaled_weights


class TanhGate(nn.Module):
    """y = tanh(gamma) x with one learned scalar, 0 at the start.

    References:
        The authors' released code, Gaussian kind (the paper has a constrained convolution here).
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.gamma) * x


class RelaxedAttention(Branch):
    """g(x)_i = W_L sum_j P_ij (W_V x_j + b_V) + b_L with P from scores of any kernel and normalisation.

    Nothing here bounds the response, so g need not be a contraction even where |W_V| and |W_L| are below 1.

    Args:
        score: The score.
        channels: C.
        response: Kernel and normalisation.
        value: The map F of the paper, C to C.
        output: W_L or what stands for it, C to C.
        num_heads: H; must divide C.
        exchange: Exchange the roles of query and key, as the released code does: token i sees token j with the
            score in which j is the query.
        visibility: What each query may see.

    References:
        Zha et al. 2021, Table 1, Eq. 2, 5, Sec. 2.4.
    """

    def __init__(
        self,
        *,
        score: Score,
        channels: int,
        response: Response,
        value: nn.Module,
        output: nn.Module,
        num_heads: int = 1,
        exchange: bool = False,
        visibility: Visibility | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.num_heads = num_heads
        self.response = response
        self.exchange = exchange
        self.score = score
        self.value = value
        self.output = output
        self.visibility = Visibility() if visibility is None else visibility
        check_backend(response, masked=self.visibility.mask is not None, causal=self.visibility.causal)

    @property
    def kind(self) -> str:
        return f"{self.score.kind} attention"

    def forward(self, x: Tensor) -> Tensor:
        query, key, value, mask = self._parts(x)
        mixed = attend(query, key, value, response=self.response, mask=mask, causal=self.visibility.causal)
        result: Tensor = self.output(join_heads(mixed))
        return result

    def at_present_weights(self) -> Callable[[Tensor], Tensor]:
        return at_scaled_weights(self)

    def explain(self, x: Tensor) -> Choice:
        query, key, value, mask = self._parts(x)
        return explain(query, key, value, response=self.response, mask=mask, causal=self.visibility.causal)

    def attention_weights(self, x: Tensor) -> Tensor:
        self.check_input(x)
        query, key = self._factors(x)
        mask = self.visibility(x.shape[-2], x.device)
        return response_weights(query, key, response=self.response, mask=mask)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return query and key factors, values and the fixed mask."""
        self.check_input(x)
        query, key = self._factors(x)
        return query, key, split_heads(self.value(x), self.num_heads), self.visibility.fixed(x.shape[-2])

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self.score(x)
        return (key, query) if self.exchange else (query, key)
