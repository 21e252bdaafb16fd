"""Attention in tiles, for every kernel, normalisation and derivative: memory O(N (tile + C)).

Tiles hold whole rows (row and total normalisation, count) or whole columns (column normalisation), so that a softmax
needs no second pass. They are computed again in every derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.functional.dense import (
    Response,
    plain_responses,
    positions,
    row_softmax,
    total_share,
    weight_matrix,
    with_triangle,
)
from invattn.functional.response_tiles import Form, response_tile
from invattn.functional.stream import Tile, stream

TILE_SCORES = 2**18
"""Scores of a tile: 1 MB in float32, the size of a second-level cache."""

LEAST_ROWS = 16
"""Rows that a tile has at least, if the batch can be split instead."""

_ROW_ROLES = {
    "query": "x",
    "mask": "mask",
    "query_position": "row",
    "key": "y",
    "value": "b",
    "key_position": "column",
}
_COLUMN_ROLES = {
    "key": "x",
    "value": "a",
    "mask": "mask",
    "key_position": "row",
    "query": "y",
    "query_position": "column",
}


def attend_streamed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    response: Response,
    bias: Tensor | None,
    mask: Tensor | None,
    causal: bool = False,
) -> Tensor:
    """Return sum_j P_ij v_j tile by tile; arguments as in :func:`invattn.functional.attend`."""
    across = query.shape[-3] * (query if response.normalize == "column" else key).shape[-2]
    samples = max(1, TILE_SCORES // max(1, across * LEAST_ROWS))
    if query.shape[0] <= samples:
        return _attend(query, key, value, response, bias, mask, causal)
    chunks = zip(*(torch.split(part, samples) for part in (query, key, value)), strict=True)
    return torch.cat([_attend(q, k, v, response, bias, mask, causal) for q, k, v in chunks])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    response: Response,
    bias: Tensor | None,
    mask: Tensor | None,
    causal: bool,
) -> Tensor:
    by_key = response.normalize == "column"
    rows = rows_of_a_tile(key, query) if by_key else rows_of_a_tile(query, key)
    given = {"query": query, "key": key, "value": value}
    if causal:
        given["query_position"], given["key_position"] = positions(query), positions(key)
    if mask is not None:
        given["mask"] = mask.mT if by_key else mask
    if bias is None and response.is_softmax and response.normalize != "total":
        return _softmax(given, response, rows)
    if bias is not None:
        given["bias"] = bias.mT if by_key else bias
    return _any_response(given, response, rows)


def rows_of_a_tile(blocked: Tensor, shared: Tensor) -> int:
    """Return how many rows of one factor a tile takes against the whole other one, both (B, H, N, d)."""
    return max(1, TILE_SCORES // max(1, blocked.shape[0] * blocked.shape[1] * shared.shape[-2]))


def _softmax(given: dict[str, Tensor], response: Response, rows: int) -> Tensor:
    """Row or column softmax, whose derivatives are written out."""
    if response.weight_sum != 1:
        given = given | {"value": given["value"] * response.weight_sum}
    if response.normalize == "row":
        order = _ROW_ROLES
    else:
        order = _COLUMN_ROLES
        # A key is seen from its own position on: with both signs turned that reads as in a row.
        given = {name: -tensor if name.endswith("position") else tensor for name, tensor in given.items()}
    names = tuple(role for name, role in order.items() if name in given)
    inputs = [given[name] for name in order if name in given]
    wanted = "a" if response.normalize == "row" else "b"
    form = Form(response.kernel, response.additive)
    return stream(response_tile(form, names, (wanted,), rows=rows), inputs)[0]


def _any_response(given: dict[str, Tensor], response: Response, rows: int) -> Tensor:
    """Any other response: derivatives of its tiles are those of autograd."""
    by_key, total = response.normalize == "column", response.normalize == "total"
    cut = ("key", "value", "key_position") if by_key else ("query", "query_position")
    names = sorted(given, key=lambda name: name not in (*cut, "mask", "bias"))

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        part = dict(zip(names, tensors, strict=True))
        mask, bias = _visible(part, by_key=by_key), part.get("bias")
        bias = bias.mT if by_key and bias is not None else bias
        query, key, value = part["query"], part["key"], part["value"]
        if not total:
            return (weight_matrix(query, key, response, bias, mask) @ value,)
        if response.is_softmax:
            row, sizes = row_softmax(query, key, response, bias, mask)
            return row @ value, sizes
        plain = plain_responses(query, key, response, mask)
        return plain @ value, plain.sum(dim=-1, keepdim=True)

    blocked = sum(name in (*cut, "mask", "bias") for name in names)
    tile = Tile(function, blocked=blocked, kept=0 if by_key else 1 + total, rows=rows)
    out, *sizes = stream(tile, [given[name] for name in names])
    if not total:
        return out
    if response.is_softmax:
        return out * (response.weight_sum * total_share(sizes[0]))
    whole = sizes[0].sum(dim=-2, keepdim=True)
    return out * (response.weight_sum / torch.where(whole == 0, torch.ones_like(whole), whole))


def _visible(part: dict[str, Tensor], *, by_key: bool) -> Tensor | None:
    """Return what the queries of a tile may see of its keys, or None for everything."""
    mask = part.get("mask")
    mask = mask.mT if by_key and mask is not None else mask
    return with_triangle(mask, part["query_position"], part["key_position"]) if "query_position" in part else mask
