"""Slow and simple computations that the laws compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def require(condition: bool | Tensor, message: str) -> None:
    """Raise AssertionError with this message unless the condition holds."""
    if not bool(condition):
        raise AssertionError(message)


def require_close(actual: Tensor, expected: Tensor, *, tolerance: float, what: str) -> None:
    """Raise unless two tensors have the same shape and dtype and agree.

    Args:
        actual: What the law is about.
        expected: The oracle's.
        tolerance: What the largest difference may be, in units of max(1, largest expected magnitude).
        what: What is compared, for the message.
    """
    require(
        actual.shape == expected.shape and actual.dtype == expected.dtype,
        f"{what} has shape {tuple(actual.shape)} and {actual.dtype}; expected {tuple(expected.shape)} and "
        f"{expected.dtype}.",
    )
    if not actual.numel():
        return
    difference = float((actual - expected).detach().abs().max())
    limit = tolerance * max(1.0, float(expected.detach().abs().max()))
    require(difference <= limit, f"{what} is off by {difference:.3g}; allowed are {limit:.3g}.")


def sample_size(x: Tensor, *, norm: str = "inf,2") -> Tensor:
    """Return |x| of every sample in float64, shape (B,), written out: "inf,2" or "2"."""
    entries = x.detach().double()
    if norm == "2":
        return entries.flatten(1).square().sum(dim=1).sqrt()
    require(norm == "inf,2", f"no law knows the norm {norm!r}.")
    return token_rows(entries).square().sum(dim=2).sqrt().amax(dim=1)


def token_rows(x: Tensor) -> Tensor:
    """Return tokens (B, N, C) of tokens, of images (B, C, H, W), N = H W, or of vectors (B, C), N = 1."""
    if x.dim() == 4:
        return x.flatten(2).transpose(1, 2)
    return x[:, None] if x.dim() == 2 else x


def operator_norm(jacobian: Tensor, x: Tensor, *, norm: str) -> Tensor:
    """Return the norm of each Jacobian: in "2" exactly, in "inf,2" the largest stretch found, which is never above it.

    For one output token i the stretch sup |sum_j B_ij d_j|_2 over |d_j|_2 <= 1 is climbed by turns in the direction w
    of the output and in d_j, which is B_ij^T w scaled to 1.

    Args:
        jacobian: Shape (B, D, D).
        x: The input it belongs to, whose shape says what a token is.
        norm: Name of the norm.
    """
    if norm == "2":
        largest: Tensor = torch.linalg.svdvals(jacobian)[:, 0]
        return largest
    require(norm == "inf,2", f"no law knows the norm {norm!r}.")
    order = token_rows(torch.arange(x[0].numel()).view(1, *x.shape[1:])).flatten()
    tokens, channels = token_rows(x).shape[1:]
    blocks = jacobian[:, order][:, :, order].view(-1, tokens, channels, tokens * channels)
    output = torch.linalg.svd(blocks, full_matrices=False)[0][..., 0]
    for _ in range(20):
        change = (blocks.mT @ output[..., None]).view(*blocks.shape[:2], tokens, channels)
        change = torch.nn.functional.normalize(change, dim=-1).flatten(2)
        image = (blocks @ change[..., None])[..., 0]
        output = torch.nn.functional.normalize(image, dim=-1)
    found: Tensor = torch.linalg.vector_norm(image, dim=-1).amax(dim=1)
    return found


def dense_jacobian(function: Callable[[Tensor], Tensor], x: Tensor, *, create_graph: bool = False) -> Tensor:
    """Return the Jacobian of every sample by reverse differentiation, one output entry at a time.

    Args:
        function: A map of batches whose samples are independent.
        x: Its input with shape (B, ...).
        create_graph: Whether the Jacobian can be differentiated in turn, by x and by the parameters.

    Returns:
        A tensor with shape (B, outputs, inputs), both counted per sample.
    """
    with torch.enable_grad():
        point = x if create_graph and x.requires_grad else x.detach().clone().requires_grad_()
        image = function(point).flatten(1)
        rows = [
            torch.autograd.grad(image[:, d].sum(), point, retain_graph=True, create_graph=create_graph)[0].flatten(1)
            for d in range(image.shape[1])
        ]
    return torch.stack(rows, dim=1)


def dense_log_det(branch: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return log|det(I + J)| from the dense Jacobian, shape (B,), differentiable in x and in the parameters."""
    jacobian = dense_jacobian(branch, x, create_graph=True)
    identity = torch.eye(jacobian.shape[-1], dtype=x.dtype, device=x.device)
    log_det: Tensor = torch.linalg.slogdet(identity + jacobian).logabsdet
    return log_det


def dense_series(branch: Callable[[Tensor], Tensor], x: Tensor, *, terms: int) -> Tensor:
    """Return sum_{k=1}^{n} (-1)^{k+1} tr(J^k) / k from the dense Jacobian, as :func:`dense_log_det` does."""
    jacobian = dense_jacobian(branch, x, create_graph=True)
    power, series = jacobian, x.new_zeros(x.shape[0])
    for k in range(1, terms + 1):
        series = series - (-1) ** k * power.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / k
        power = power @ jacobian
    return series


def gradients(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a scalar, with zeros where an input is not used."""
    if not value.requires_grad:
        return [torch.zeros_like(entry) for entry in inputs]
    return list(torch.autograd.grad(value, list(inputs), materialize_grads=True))


def trainable(module: nn.Module) -> list[Tensor]:
    """Return the parameters that require a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and every part of it back into its own mode afterwards."""
    parts = list(module.modules())
    before = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part, mode in zip(parts, before, strict=True):
            part.training = mode
