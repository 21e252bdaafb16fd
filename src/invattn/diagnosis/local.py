"""What every look at the Jacobian of a branch shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from invattn.branches import Branch


@contextmanager
def evaluating(branch: Branch) -> Iterator[None]:
    """Evaluation mode, in which no forward changes a buffer; each module's own mode afterwards."""
    modes = [(module, module.training) for module in branch.modules()]
    branch.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def push(branch: Branch, x: Tensor, vector: Tensor) -> Tensor:
    """Return J v for vectors with shape (B, D)."""
    _, image = torch.func.jvp(branch, (x,), (vector.view_as(x),))  # type: ignore[misc]
    product: Tensor = image.flatten(1)
    return product


def unit_vectors(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return random directions of Euclidean length 1, shape (B, D)."""
    vectors = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator).flatten(1)
    unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit


def only_finite(hessenberg: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices in double precision, zero where not finite, and which samples are finite, shape (B,)."""
    finite = hessenberg.isfinite().all(dim=-1).all(dim=-1)
    return torch.where(finite[:, None, None], hessenberg, 0).double(), finite


def beside(numbers: Tensor, x: Tensor) -> Tensor:
    """Return one number a sample, shape (B,), in a shape that multiplies x, shape (B, ...)."""
    return numbers.reshape(-1, *(1 for _ in range(x.dim() - 1)))
