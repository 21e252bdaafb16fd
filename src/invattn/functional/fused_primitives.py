"""What fused attention is made of on a kind of device, and whether it is right there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from invattn.functional.kernels import Kernel, get_kernel

Pair = tuple[Tensor, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]


class Primitives(ABC):
    """Row softmax attention and its first gradients, with memory O(N); column-normalised attention.

    Factors have shape (B, H, N, d) and (B, H, M, d), values (B, H, M, C). The normaliser of a row are some numbers
    whose sum is the log-sum-exp of its logits, with shape (B, H, N, parts).
    """

    kernels: tuple[str, ...]
    """Names of the kernels phi that they know."""

    @abstractmethod
    def obstacle(self, itemsize: int, width: int) -> str | None:
        """Return why numbers of so many bytes, or factors or values so wide, are too much; None where they are not."""

    @abstractmethod
    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str, causal: bool) -> Pair:
        """Return the output (B, H, N, C) and the normaliser of each row."""

    @abstractmethod
    def backward(self, incoming: Tensor, inputs: Triple, found: Pair, *, kernel: str, causal: bool) -> Triple:
        """Return the gradients of <incoming, output> by query, key and value, from what :meth:`forward` found."""

    @abstractmethod
    def column(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str) -> Pair:
        """Return column-normalised attention (B, H, N, C) and the normaliser of each query's weights in all."""


def primitives_right(primitives: Primitives, kernel: str, device: str) -> bool:
    """Whether primitives give what the formulas do, on an example of 70 x 40 scores; False where they do not run.

    It is tried on a thread of its own, where no torch.func transform, autocast or torch.inference_mode of the caller is
    active.
    """
    if kernel not in primitives.kernels:
        return False
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_right, primitives, get_kernel(kernel), device).result()


def _right(primitives: Primitives, kernel: Kernel, device: str) -> bool:
    dtype = torch.float64 if primitives.obstacle(8, 1) is None else torch.float32
    # Numbers without a pattern, the same everywhere; scores up to 40, of both signs.
    query, key, value, incoming = (
        (scale * torch.arange(1, count * width + 1, dtype=torch.float64).square().sin()).reshape(1, 1, count, width)
        for count, width, scale in ((70, 3, 5.0), (40, 3, 3.0), (40, 5, 1.0), (70, 5, 1.0))
    )
    try:
        found = _found(primitives, kernel.name, [tensor.to(device, dtype) for tensor in (query, key, value, incoming)])
    except Exception:  # whatever goes wrong with a private interface or in a compiler: there are other back ends
        return False
    known = _known(kernel, query, key, value, incoming)
    close = 1e-10 if dtype == torch.float64 else 1e-4
    return all(
        one.shape == other.shape and torch.allclose(one.double().cpu(), other, rtol=close, atol=close)
        for one, other in zip(found, known, strict=True)
    )


def _found(primitives: Primitives, kernel: str, inputs: list[Tensor]) -> list[Tensor]:
    query, key, value, incoming = inputs
    out, sizes = primitives.forward(query, key, value, kernel=kernel, causal=False)
    gradients = primitives.backward(incoming, (query, key, value), (out, sizes), kernel=kernel, causal=False)
    column, _ = primitives.column(query, key, value, kernel=kernel)
    seen, _ = primitives.forward(query[..., :40, :], key, value, kernel=kernel, causal=True)
    return [out, sizes.sum(dim=-1), *gradients, column, seen]


def _known(kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, incoming: Tensor) -> list[Tensor]:
    """Return what the fused kernels should."""
    assert kernel.log_value is not None
    score = query @ key.mT
    logits = kernel.log_value(score)
    weights = logits.softmax(dim=-1)
    by_score = torch._softmax_backward_data(incoming @ value.mT, weights, -1, weights.dtype)
    if kernel.log_slope is not None:
        by_score = by_score * kernel.log_slope(score)
    unseen = torch.ones_like(logits[..., :40, :], dtype=torch.bool).triu(1)
    return [
        weights @ value,
        logits.logsumexp(dim=-1),
        by_score @ key,
        by_score.mT @ query,
        weights.mT @ incoming,
        logits.softmax(dim=-2) @ value,
        logits[..., :40, :].masked_fill(unseen, -torch.inf).softmax(dim=-1) @ value,
    ]
