"""The law of gradients through an inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.bijections import Bijection
from invattn.testing.oracles import (
    dense_jacobian,
    evaluation_mode,
    gradients,
    require,
    require_close,
    trainable,
)


def check_inverse_gradient(
    bijection: Bijection, z: Tensor, *, tolerance: float = 1e-8, generator: torch.Generator | None = None
) -> None:
    """Check the gradients of ``inverse`` by z and by the parameters against a dense solve.

    For x = f^{-1}(z) and an incoming v: grad_z = w with J_f^T w = v, grad_theta = -d/dtheta (w . f(x)) at fixed x, w.

    Args:
        bijection: The bijection; checked in evaluation mode.
        z: Outputs with shape (B, ...), float64, few entries a sample.
        tolerance: What solver and rounding may do, relative to max(1, the largest gradient).
        generator: Where v comes from; None is torch's default generator.

    Raises:
        AssertionError: If a gradient is wrong, or a second differentiation gives a wrong result silently.
    """
    with evaluation_mode(bijection):
        parameters = trainable(bijection)
        target = z.detach().clone().requires_grad_()
        x = bijection.inverse(target)
        incoming = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        found = gradients((incoming * x).sum(), [target, *parameters])
        solved = x.detach()
        jacobian = dense_jacobian(bijection, solved)
        adjoint = torch.linalg.solve(jacobian.mT, incoming.flatten(1)[..., None])[..., 0].view_as(z)
        wanted = [adjoint, *gradients(-(adjoint * bijection(solved)).sum(), parameters)]
        names = ["z", *(f"a parameter of shape {tuple(p.shape)}" for p in parameters)]
        for name, grad, expected in zip(names, found, wanted, strict=True):
            require_close(grad, expected, tolerance=tolerance, what=f"the gradient of the inverse by {name}")
        require(not torch.equal(found[0], torch.zeros_like(z)), "no gradient reaches z.")
