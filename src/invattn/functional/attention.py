"""Normalised attention from factors, dense for short sequences and in tiles for long ones.

A score is either a product q_i . k_j or a sum q_i + k_j of two scalars; the latter is the concatenation
kind, which is never built from an N x N x 2C tensor. Positive kernels go through ``log phi`` and a
softmax, so no finite score overflows. Tiles hold whole rows (row and total normalisation) or whole
columns (column normalisation) and are recomputed in the backward pass: memory O(N (tile + C)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from invattn._names import check_name
from invattn.functional._transforms import transforms_active
from invattn.functional.kernels import Kernel

NORMALIZATIONS = ("row", "column", "total", "count")

_CHUNK_SCORES = 2**18  # scores of one batch chunk or tile: 1 MB in float32, the size of a second-level cache
_TILED_SCORES = 2**22  # scores of one sample above which tiles are used (N > 2048)
_LEAST_TILE = 16

_T = TypeVar("_T")


@dataclass(frozen=True)
class Response:
    """How scores become weights.

    Attributes:
        kernel: phi, applied to every score.
        normalize: row (sum over keys is 1), column (sum over queries is 1), total (sum over both is 1)
            or count (divided by the number of keys, as in the paper's Table 1 without a kernel).
        additive: Scores are q_i + k_j of scalars, not q_i . k_j.
        weight_sum: What the normalised weights sum to instead of 1 (the paper's App. C, remedy 4).
    """

    kernel: Kernel
    normalize: str = "row"
    additive: bool = False
    weight_sum: float = 1.0

    def __post_init__(self) -> None:
        check_name(self.normalize, NORMALIZATIONS, what="normalisation")


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    response: Response,
    logit_bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return sum_j P_ij v_j for every query i.

    Args:
        query: Query factors with shape (B, H, N, d), d = 1 for additive scores.
        key: Key factors with shape (B, H, M, d).
        value: Values with shape (B, H, M, C).
        response: Kernel and normalisation.
        logit_bias: Added to log phi(score), shape (H, N, M); positive kernels only.
        mask: Boolean, shape (N, M); True where query i may see key j.

    Returns:
        A tensor with shape (B, H, N, C). A query that may see no key gets zeros.

    Raises:
        ValueError: If a logit bias meets a kernel without logarithm.

    References:
        Zha et al. 2021, Table 1 and Eq. 2.
    """
    if logit_bias is not None and response.kernel.log_value is None:
        raise ValueError(f"a logit bias needs a positive kernel; {response.kernel.name!r} has no logarithm.")
    scores = query.shape[-3] * query.shape[-2] * key.shape[-2]
    if scores > _TILED_SCORES:
        return _attend_tiled(query, key, value, response, logit_bias, mask)
    samples = max(1, _CHUNK_SCORES // max(1, scores))
    if query.shape[0] <= samples:
        return _attend_dense(query, key, value, response, logit_bias, mask)
    chunks = zip(*(torch.split(part, samples) for part in (query, key, value)), strict=True)
    return torch.cat([_attend_dense(q, k, v, response, logit_bias, mask) for q, k, v in chunks])


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
        return _weights(query, key, response, logit_bias, mask)
    row, sizes = _row_softmax(query, key, response, logit_bias, mask)
    return row * (response.weight_sum * _total_share(sizes))


def _scores(query: Tensor, key: Tensor, response: Response) -> Tensor:
    if response.additive:
        return query + key.transpose(-1, -2)
    return query @ key.transpose(-1, -2)


def _logits(query: Tensor, key: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    assert response.kernel.log_value is not None
    logits = response.kernel.log_value(_scores(query, key, response))
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = torch.where(mask, logits, torch.finfo(logits.dtype).min)
    return logits


def _weights(query: Tensor, key: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """Weights of one tile; total normalisation only for kernels without logarithm and a whole map."""
    if response.kernel.log_value is not None and response.normalize != "count":
        logits = _logits(query, key, response, bias, mask)
        weights = logits.softmax(dim=-1 if response.normalize == "row" else -2)
        weights = weights if mask is None else torch.where(mask, weights, 0)
        return weights if response.weight_sum == 1 else weights * response.weight_sum
    plain = _plain_responses(query, key, response, mask)
    return plain * (response.weight_sum / _plain_sum(plain, response, mask))


def _plain_responses(query: Tensor, key: Tensor, response: Response, mask: Tensor | None) -> Tensor:
    plain = response.kernel.value(_scores(query, key, response))
    return plain if mask is None else torch.where(mask, plain, 0)


def _plain_sum(plain: Tensor, response: Response, mask: Tensor | None) -> Tensor:
    """The normaliser of plain responses; an exact zero is replaced by one, so that its weights are zero."""
    if response.normalize == "count":
        seen = plain.new_tensor(plain.shape[-1]) if mask is None else mask.sum(dim=-1, keepdim=True).to(plain.dtype)
        return seen.clamp_min(1)
    dim = {"row": (-1,), "column": (-2,), "total": (-2, -1)}[response.normalize]
    total = plain.sum(dim=dim, keepdim=True)
    return torch.where(total == 0, torch.ones_like(total), total)


def _row_softmax(
    query: Tensor, key: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The softmax of each row, and per row its largest logit and sum_j exp(logit - largest), shape (..., N, 2).

    The largest logit is a constant of the derivative: it cancels in every weight. The two numbers are kept apart,
    because their log-sum would round away what distinguishes rows with large logits.
    """
    logits = _logits(query, key, response, bias, mask)
    peak = logits.detach().amax(dim=-1, keepdim=True)
    response_over_peak = (logits - peak).exp()
    size = response_over_peak.sum(dim=-1, keepdim=True)
    row = response_over_peak / size
    return (row if mask is None else torch.where(mask, row, 0)), torch.cat([peak, size], dim=-1)


def _total_share(sizes: Tensor) -> Tensor:
    """The share of each row in the total, shape (..., N, 1), from the second result of :func:`_row_softmax`."""
    peak, size = sizes[..., :1], sizes[..., 1:]
    share: Tensor = size * (peak - peak.amax(dim=-2, keepdim=True)).exp()
    return share / share.sum(dim=-2, keepdim=True)


def _attend_dense(
    query: Tensor, key: Tensor, value: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    return response_weights(query, key, response=response, logit_bias=bias, mask=mask) @ value


def _attend_tiled(
    query: Tensor, key: Tensor, value: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    run = _recomputed if torch.is_grad_enabled() and not transforms_active() else _direct
    by_key = response.normalize == "column"
    across = query.shape[-2] if by_key else key.shape[-2]
    size = max(_LEAST_TILE, _CHUNK_SCORES // (query.shape[0] * query.shape[1] * across))
    tiles = [slice(start, start + size) for start in range(0, (key if by_key else query).shape[-2], size)]

    def cut(tensor: Tensor | None, tile: slice) -> Tensor | None:
        if tensor is None:
            return None
        return tensor[..., tile] if by_key else tensor[..., tile, :]

    if by_key:
        parts = [
            run(_attend_dense, query, key[..., t, :], value[..., t, :], response, cut(bias, t), cut(mask, t))
            for t in tiles
        ]
        return _sum(parts)
    if response.normalize != "total":
        parts = [run(_attend_dense, query[..., t, :], key, value, response, cut(bias, t), cut(mask, t)) for t in tiles]
        return torch.cat(parts, dim=-2)
    tile = _total_tile if response.kernel.log_value is not None else _plain_total_tile
    pairs = [run(tile, query[..., t, :], key, value, response, cut(bias, t), cut(mask, t)) for t in tiles]
    out, summary = (torch.cat(part, dim=-2) for part in zip(*pairs, strict=True))
    if response.kernel.log_value is not None:
        return out * (response.weight_sum * _total_share(summary))
    total = summary.sum(dim=-2, keepdim=True)
    return out * (response.weight_sum / torch.where(total == 0, torch.ones_like(total), total))


def _total_tile(
    query: Tensor, key: Tensor, value: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    row, sizes = _row_softmax(query, key, response, bias, mask)
    return row @ value, sizes


def _plain_total_tile(
    query: Tensor, key: Tensor, value: Tensor, response: Response, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    plain = _plain_responses(query, key, response, mask)
    return plain @ value, plain.sum(dim=-1, keepdim=True)


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _direct(function: Callable[..., _T], *arguments: object) -> _T:
    return function(*arguments)


def _recomputed(function: Callable[..., _T], *arguments: object) -> _T:
    result: _T = checkpoint(function, *arguments, use_reentrant=False)
    return result
