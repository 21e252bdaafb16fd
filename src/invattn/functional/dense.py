"""Normalised attention by its formula: the whole map, in chunks of the batch. The reference of all back ends.

Positive kernels go through ``log phi`` and a softmax, so no finite score overflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invattn._errors import check_name
from invattn.functional.kernels import Kernel

NORMALIZATIONS = ("row", "column", "total", "count")


@dataclass(frozen=True)
class Response:
    """How scores become weights.

    Attributes:
        kernel: phi, applied to every score.
        normalize: row (sum over keys is 1), column (sum over queries is 1), total (sum over both is 1)
            or count (divided by the number of keys, as in the paper's Table 1 without a kernel).
        additive: Scores are q_i + k_j of scalars, not q_i . k_j.
        weight_sum: What the normalised weights sum to instead of 1 (the paper's App. C, remedy 4).
        backend: Name of the back end that computes it; None: one is chosen at each call.
    """

    kernel: Kernel
    normalize: str = "row"
    additive: bool = False
    weight_sum: float = 1.0
    backend: str | None = None

    def __post_init__(self) -> None:
        check_name(self.normalize, NORMALIZATIONS, what="normalisation")

    @property
    def is_softmax(self) -> bool:
        """Whether the weights are a softmax of log phi(score): phi is positive, and something is normalised."""
        return self.kernel.log_value is not None and self.normalize != "count"


def with_triangle(mask: Tensor | None, rows: Tensor, columns: Tensor) -> Tensor | None:
    """Return a mask (N, M), or none, that also hides from the i-th query what comes later than it.

    Args:
        mask: Boolean (N, M), True where query i may see key j, or None.
        rows: Positions of the queries with shape (N, 1).
        columns: Positions of the keys with shape (M, 1).
    """
    triangle = rows >= columns.mT
    return triangle if mask is None else triangle & mask


def positions(tensor: Tensor) -> Tensor:
    """Return 0 ... N - 1 for a tensor (..., N, d), shape (N, 1)."""
    return torch.arange(tensor.shape[-2], device=tensor.device)[:, None]


CHUNK_SCORES = 2**18
"""Scores of one chunk of the batch: 1 MB in float32, the size of a second-level cache."""


def attend_dense(
    query: Tensor, key: Tensor, value: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Return sum_j P_ij v_j from the dense weights; arguments as in :func:`invattn.functional.attend`."""
    samples = max(1, CHUNK_SCORES // max(1, query.shape[-3] * query.shape[-2] * key.shape[-2]))
    if query.shape[0] <= samples:
        return response_weights(query, key, response=response, logit_bias=bias, mask=mask) @ value
    parts = [
        response_weights(q, k, response=response, logit_bias=bias, mask=mask) @ v
        for q, k, v in zip(*(torch.split(part, samples) for part in (query, key, value)), strict=True)
    ]
    return torch.cat(parts)


def response_weights(
    query: Tensor,
    key: Tensor,
    *,
    response: Response,
    logit_bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the dense weights P with shape (B, H, N, M); arguments as in :func:`attend`."""
    if response.normalize != "total" or response.kernel.log_value is None:
        return weight_matrix(query, key, response, logit_bias, mask)
    row, sizes = row_softmax(query, key, response, logit_bias, mask)
    return row * (response.weight_sum * total_share(sizes))


def score_matrix(query: Tensor, key: Tensor, response: Response) -> Tensor:
    """Return the scores with shape (..., N, M)."""
    if response.additive:
        return query + key.transpose(-1, -2)
    return query @ key.transpose(-1, -2)


def logit_matrix(query: Tensor, key: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """Return log phi(score) + bias, the least finite number where a query may not see a key."""
    assert response.kernel.log_value is not None
    logits = response.kernel.log_value(score_matrix(query, key, response))
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = torch.where(mask, logits, torch.finfo(logits.dtype).min)
    return logits


def weight_matrix(query: Tensor, key: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """Weights of one tile; total normalisation only for kernels without logarithm and a whole map."""
    if response.kernel.log_value is not None and response.normalize != "count":
        logits = logit_matrix(query, key, response, bias, mask)
        weights = logits.softmax(dim=-1 if response.normalize == "row" else -2)
        weights = weights if mask is None else torch.where(mask, weights, 0)
        return weights if response.weight_sum == 1 else weights * response.weight_sum
    plain = plain_responses(query, key, response, mask)
    return plain * (response.weight_sum / plain_sum(plain, response, mask))


def plain_responses(query: Tensor, key: Tensor, response: Response, mask: Tensor | None) -> Tensor:
    """Return phi(score), zero where a query may not see a key."""
    plain = response.kernel.value(score_matrix(query, key, response))
    return plain if mask is None else torch.where(mask, plain, 0)


def plain_sum(plain: Tensor, response: Response, mask: Tensor | None) -> Tensor:
    """The normaliser of plain responses; an exact zero is replaced by one, so that its weights are zero."""
    if response.normalize == "count":
        seen = plain.new_tensor(plain.shape[-1]) if mask is None else mask.sum(dim=-1, keepdim=True).to(plain.dtype)
        return seen.clamp_min(1)
    dim = {"row": (-1,), "column": (-2,), "total": (-2, -1)}[response.normalize]
    total = plain.sum(dim=dim, keepdim=True)
    return torch.where(total == 0, torch.ones_like(total), total)


def row_softmax(
    query: Tensor, key: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The softmax of each row, and per row its largest logit and sum_j exp(logit - largest), shape (..., N, 2).

    The largest logit is a constant of the derivative: it cancels in every weight. The two numbers are kept apart,
    because their log-sum would round away what distinguishes rows with large logits.
    """
    logits = logit_matrix(query, key, response, bias, mask)
    peak = logits.detach().amax(dim=-1, keepdim=True)
    response_over_peak = (logits - peak).exp()
    size = response_over_peak.sum(dim=-1, keepdim=True)
    row = response_over_peak / size
    return (row if mask is None else torch.where(mask, row, 0)), torch.cat([peak, size], dim=-1)


def total_share(sizes: Tensor) -> Tensor:
    """The share of each row in the total, shape (..., N, 1), from the second result of :func:`row_softmax`."""
    peak, size = sizes[..., :1], sizes[..., 1:]
    share: Tensor = size * (peak - peak.amax(dim=-2, keepdim=True)).exp()
    return share / share.sum(dim=-2, keepdim=True)
