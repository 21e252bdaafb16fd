"""Convolutions in the precision that a certificate and an inverse need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute convolutions of float32 on a GPU in float32 inside the block.

    torch rounds their factors to TF32, with 10 bits instead of 23, unless told otherwise: what is evaluated is then not
    the certified map, and an inverse cannot be better than about 1e-3. Products of matrices are left alone: torch's
    default for those is float32. Nothing changes on the CPU.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
