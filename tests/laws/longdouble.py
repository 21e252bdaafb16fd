"""The certified branches written out in 80-bit arithmetic: an oracle that shares no code with the library.

Only the weights as they are multiplied (W_L times its scale, the logit scales alpha) are taken from the branch, in
its own precision: they define the map whose inverse is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invattn.branches import Branch, CertifiedAttention, CertifiedPointwise

LONG = np.longdouble
UNIT = float(np.finfo(LONG).eps) / 2
Map = Callable[[np.ndarray], np.ndarray]


def long(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().astype(LONG)


def squash(value: np.ndarray) -> np.ndarray:
    return value / np.sqrt(1 + (value * value).sum(axis=-1, keepdims=True))


def linear(layer: Any) -> Map:
    weight, bias = long(layer.weight), long(layer.bias)
    return lambda x: x @ weight.T + bias


def heads(x: np.ndarray, count: int) -> np.ndarray:
    return x.reshape(*x.shape[:-1], count, -1).swapaxes(-3, -2)


def softmax(logits: np.ndarray, visible: np.ndarray | None) -> np.ndarray:
    if visible is not None:
        logits = np.where(visible, logits, -np.inf)
    share = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(share / share.sum(axis=-1, keepdims=True))


def scores(branch: CertifiedAttention, alpha: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return alpha s_ij, with shape (B, H, N, N), as a function of tokens."""
    score: Any = branch.score
    count, factor = branch.num_heads, alpha[:, None, None]
    if score.kind == "gaussian":
        return lambda x: factor * (squash(heads(x, count)) @ squash(heads(x, count)).swapaxes(-1, -2))
    query, key = linear(score.query), linear(score.key)
    if not score.additive:
        return lambda x: factor * (squash(heads(query(x), count)) @ squash(heads(key(x), count)).swapaxes(-1, -2))
    rows = np.stack([long(mix.weight)[0] for mix in score.mix])
    first, second = rows[:, None, : rows.shape[1] // 2], rows[:, None, rows.shape[1] // 2 :]

    def additive(x: np.ndarray) -> np.ndarray:
        a = (heads(query(x), count) * first).sum(axis=-1)
        b = (heads(key(x), count) * second).sum(axis=-1)
        return np.asarray(factor * (a[..., :, None] + b[..., None, :]))

    return additive


def oracle(branch: Branch) -> Map:
    """Return g of a certified branch for tokens with shape (B, N, C), in 80 bits."""
    assert isinstance(branch, CertifiedAttention | CertifiedPointwise)
    value, bias = linear(branch.value), long(branch.output.bias)
    dtype = branch.output.weight.dtype
    if isinstance(branch, CertifiedPointwise):
        weight = long(branch.output.weight * branch._scaled(branch._norms())[0].to(dtype))
        return lambda x: squash(value(x)) @ weight.T + bias
    alpha, output = branch._scaled(branch._norms())
    weight, score = long(output), scores(branch, long(alpha.to(dtype)))
    name, position = branch.response.kernel.name, branch.position_logits
    assert name in ("exp", "elu+1")

    def attention(x: np.ndarray) -> np.ndarray:
        logits = score(x)
        if name == "elu+1":
            logits = np.where(logits > 0, np.log1p(np.maximum(logits, 0)), logits)
        if position is not None:
            logits = logits + long(position(x.shape[-2]))
        seen = branch.visibility(x.shape[-2], torch.device("cpu"))
        share = softmax(logits, None if seen is None else seen.numpy())
        mixed = share @ squash(heads(value(x), branch.num_heads))
        return np.asarray(mixed.swapaxes(-3, -2).reshape(x.shape) @ weight.T + bias)

    return attention


def size(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((x * x).sum(axis=-1)).max(axis=-1))


def true_error(branch: Branch, target: Tensor, found: Tensor, bound: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return |found - f^{-1}(target)|: the nearest that is known, and more than it can be; float64, shape (B,).

    Picard steps in 80 bits go on from what was found until their own error, by the certificate, is below a hundredth
    of the bound that is tested.
    """
    g, lipschitz = oracle(branch), branch.lipschitz_bound().value
    z, start, limit = long(target), long(found), long(bound) / 100
    x = start
    for _ in range(5000):
        image = g(x)
        rounding = 256 * UNIT * (size(x) + size(image) + size(z))
        unsure = (size(x + image - z) + rounding) / (1 - LONG(lipschitz))
        if (unsure <= limit).all():
            break
        x = z - image
    else:
        raise AssertionError("the reference did not come near enough.")
    error = size(x - start)
    return error.astype(np.float64), (error + unsure).astype(np.float64)
