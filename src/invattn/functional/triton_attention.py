"""Fused attention on GPUs (CUDA), by Triton: the host's side of :mod:`invattn.functional.triton_kernels`.

Triton comes with torch's builds for CUDA; it is imported at the first call. In its interpreter (TRITON_INTERPRET=1,
before that import) the same programs run on tensors of a processor: so they are tested without a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invattn.functional.fused_primitives import Pair, Primitives, Triple

WIDEST = 128
"""Widest factors or values that a block holds at once."""

LEAST = 16
"""Width that a factor of tl.dot has at least."""


class TritonKernels(Primitives):
    """Triton's programs, in float32."""

    kernels = ("exp", "elu+1", "softplus")

    def obstacle(self, itemsize: int, width: int) -> str | None:
        if itemsize > 4:
            return "computes in float32 on GPUs: Triton documents no product of matrices in float64"
        if width > WIDEST:
            return f"takes factors and values of at most {WIDEST} channels a head on GPUs; got {width}"
        return None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str, causal: bool) -> Pair:
        return self._values(query, key, value, None, kernel=kernel, causal=causal)

    def column(self, query: Tensor, key: Tensor, value: Tensor, *, kernel: str) -> Pair:
        _, sizes = self._values(key, query, query[..., :1], None, kernel=kernel, causal=False)
        out, shares = self._values(query, key, value, sizes, kernel=kernel, causal=False)
        return out * shares.sum(dim=-1, keepdim=True).exp(), shares

    def backward(self, incoming: Tensor, inputs: Triple, found: Pair, *, kernel: str, causal: bool) -> Triple:
        from invattn.functional import triton_kernels as programs

        query, key, value = inputs
        *given, out, sizes = (tensor.contiguous() for tensor in (incoming, *inputs, *found))
        means = sizes.new_empty(sizes.shape[:-1])
        by_query, by_key, by_value = (
            torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs
        )
        sides = {"KERNEL": kernel, "CAUSAL": causal, **_sizes(query, value)}
        rows, columns = query.shape[-2], key.shape[-2]
        _run(programs.gradients_by_rows, (*given, out, sizes, means, by_query, rows, columns), over="ROWS", **sides)
        _run(
            programs.gradients_by_columns,
            (*given, sizes, means, by_key, by_value, rows, columns),
            over="COLUMNS",
            **sides,
        )
        return by_query, by_key, by_value

    def _values(
        self, query: Tensor, key: Tensor, value: Tensor, minus: Tensor | None, *, kernel: str, causal: bool
    ) -> Pair:
        """Return :meth:`forward` of logits from which the normalisers ``minus`` of the columns are subtracted."""
        from invattn.functional import triton_kernels as programs

        q, k, v = (tensor.contiguous() for tensor in (query, key, value))
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
        sizes = q.new_empty((*q.shape[:-1], 2))
        _run(
            programs.values,
            (q, k, v, q if minus is None else minus.contiguous(), out, sizes, q.shape[-2], k.shape[-2]),
            over="ROWS",
            KERNEL=kernel,
            CAUSAL=causal,
            SHIFTED=minus is not None,
            **_sizes(q, v),
        )
        return out, sizes


def padded(width: int) -> int:
    """Return the width of a block of factors or values: a power of two."""
    return max(LEAST, 1 << (width - 1).bit_length())


def block_of(width: int) -> int:
    """Return the rows and columns of a block of scores whose factors and values are padded to this width.

    A heuristic from what the compiler says, as no GPU was at hand to measure: numbers of a thread stay in its registers
    (with blocks twice as large they do not), and 48 KiB of shared memory, which every GPU has, are enough.
    """
    return 32 if width <= 64 else 16


def _sizes(query: Tensor, value: Tensor) -> dict[str, int]:
    width, channels = query.shape[-1], value.shape[-1]
    widths = padded(width), padded(channels)
    block = block_of(max(widths))
    names = ("WIDTH", "CHANNELS", "PADDED_WIDTH", "PADDED_CHANNELS", "ROWS", "COLUMNS")
    return dict(zip(names, (width, channels, *widths, block, block), strict=True))


def _run(program: Any, arguments: tuple[Any, ...], *, over: str, **constants: Any) -> None:
    """Start one program for each block of rows or columns of each sample and head."""
    query: Tensor = arguments[0]
    tokens = arguments[-2] if over == "ROWS" else arguments[-1]
    blocks = query.shape[0] * query.shape[1] * -(-tokens // constants[over])
    if blocks == 0:
        return
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        program[(blocks,)](*arguments, **constants, num_warps=4, num_stages=1)
