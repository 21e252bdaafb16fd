"""The laws of a residual branch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invattn._errors import CertificateError
from invattn.branches import Branch
from invattn.norms import NORMS
from invattn.testing.oracles import (
    dense_jacobian,
    evaluation_mode,
    gradients,
    operator_norm,
    require,
    require_close,
    sample_size,
    trainable,
)


def check_branch(
    branch: Branch, x: Tensor, *, tolerance: float = 1e-9, generator: torch.Generator | None = None
) -> None:
    """Check a branch at a small batch: shapes, independence of samples, derivatives, certificate.

    Args:
        branch: The branch; checked in evaluation mode.
        x: What it takes, (B, N, C), (B, C, H, W) or (B, C), B >= 2, float64, a sample small (a dense Jacobian is
            made).
        tolerance: What rounding may do, relative to max(1, the largest value compared).
        generator: Where random directions and pairs come from; None is torch's default generator.

    Raises:
        AssertionError: If a law is broken.
    """
    with evaluation_mode(branch):
        _check_map(branch, x, tolerance)
        jacobian = dense_jacobian(branch, x)
        _check_transforms(branch, x, jacobian, tolerance, generator)
        _check_linearisation(branch, x, jacobian, tolerance, generator)
        _check_batch_gradient(branch, x, tolerance)
        if branch.certified:
            _check_certificate(branch, x, jacobian, generator)
        else:
            _check_no_certificate(branch)


def _check_map(branch: Branch, x: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        before = x.clone()
        image = branch(x)
        require(image.shape == x.shape, f"g(x) has shape {tuple(image.shape)} for inputs of {tuple(x.shape)}.")
        require(image.dtype == x.dtype, f"g(x) is {image.dtype} for inputs of {x.dtype}.")
        require(image.isfinite().all(), "g(x) is not finite.")
        require(torch.equal(x, before), "g changed its input.")
        require(torch.equal(branch(x), image), "g gave two different values for one input in evaluation mode.")
        require(torch.equal(branch.at_present_weights()(x), image), "g at its present weights gives other values.")
        alone = torch.cat([branch(sample[None]) for sample in x])
        require_close(alone, image, tolerance=tolerance, what="g of a sample alone, against g of the batch,")


def _check_transforms(
    branch: Branch, x: Tensor, jacobian: Tensor, tolerance: float, generator: torch.Generator | None
) -> None:
    def single(sample: Tensor) -> Tensor:
        return branch(sample[None])[0]

    size = x[0].numel()
    direction = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    along = (jacobian @ direction.flatten(1)[..., None])[..., 0].view_as(x)
    back = (jacobian.mT @ direction.flatten(1)[..., None])[..., 0].view_as(x)
    _, pushed = torch.func.jvp(branch, (x,), (direction,))  # type: ignore[misc]
    require_close(pushed, along, tolerance=tolerance, what="torch.func.jvp of g")
    _, pull = torch.func.vjp(branch, x)  # type: ignore[misc]
    require_close(pull(direction)[0], back, tolerance=tolerance, what="torch.func.vjp of g")
    reverse = torch.func.vmap(torch.func.jacrev(single))(x).reshape(-1, size, size)
    require_close(reverse, jacobian, tolerance=tolerance, what="torch.func.vmap(jacrev) of g")


def _check_linearisation(
    branch: Branch, x: Tensor, jacobian: Tensor, tolerance: float, generator: torch.Generator | None
) -> None:
    point = x.clone().requires_grad_()
    image, transpose = branch.linearised(point)
    require_close(image.detach(), branch(x).detach(), tolerance=tolerance, what="the value of g with its transpose")
    direction = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    back = (jacobian.mT @ direction.flatten(1)[..., None])[..., 0].view_as(x)
    before = direction.clone()
    for _ in range(2):  # the first use must leave the second one right
        require_close(transpose(direction), back, tolerance=tolerance, what="the transpose of J at x")
    require(torch.equal(direction, before), "the transpose of J changed its argument.")
    require(not transpose(direction).requires_grad, "the transpose of J returned a graph.")
    (pulled,) = torch.autograd.grad(image, point, direction)
    require_close(pulled, back, tolerance=tolerance, what="the graph of g with its transpose")


def _check_batch_gradient(branch: Branch, x: Tensor, tolerance: float) -> None:
    parameters = trainable(branch)
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).view_as(x)
    together = gradients((weights * branch(x)).sum(), parameters)
    alone = [gradients((w * branch(sample[None])[0]).sum(), parameters) for w, sample in zip(weights, x, strict=True)]
    for batch, *samples in zip(together, *alone, strict=True):
        total = torch.stack(samples).sum(dim=0)
        require_close(total, batch, tolerance=tolerance, what="the sum of the gradients of batches of one")


def _check_certificate(branch: Branch, x: Tensor, jacobian: Tensor, generator: torch.Generator | None) -> None:
    bound = branch.lipschitz_bound()
    require(0 <= bound.value < 1, f"the Lipschitz bound {bound.value} is not below 1.")
    require(bound.norm in NORMS, f"the bound is stated in the norm {bound.norm!r}; expected one of {list(NORMS)}.")
    radius = float(torch.linalg.eigvals(jacobian).abs().max())
    require(radius <= bound.value * (1 + 1e-9), f"an eigenvalue of J has modulus {radius} above {bound.value}.")
    stretch = float(operator_norm(jacobian, x, norm=bound.norm).max())
    require(stretch <= bound.value * (1 + 1e-9), f"J has norm {stretch} above {bound.value} in |.|_{{{bound.norm}}}.")
    identity = torch.eye(jacobian.shape[-1], dtype=x.dtype, device=x.device)
    sign, log_det = torch.linalg.slogdet(identity + jacobian)
    require((sign > 0).all(), "det(I + J) is not positive.")
    size = jacobian.shape[-1]
    inside = (log_det >= size * math.log1p(-bound.value) - 1e-9) & (log_det <= size * math.log1p(bound.value) + 1e-9)
    require(inside.all(), f"log det(I + J) = {log_det.tolist()} is out of the range that L = {bound.value} allows.")
    for scale in (1e-3, 1.0, 1e3):
        step = scale * torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        with torch.no_grad():
            change = sample_size(branch(x + step) - branch(x), norm=bound.norm)
            ratio = float((change / sample_size(step, norm=bound.norm)).max())
        require(ratio <= bound.value * (1 + 1e-6), f"a pair at distance {scale:g} has ratio {ratio} > {bound.value}.")


def _check_no_certificate(branch: Branch) -> None:
    try:
        bound = branch.lipschitz_bound()
    except CertificateError:
        return
    raise AssertionError(f"a branch that is not certified returned the bound {bound.value}.")
