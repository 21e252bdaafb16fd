"""The laws of a bijection."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from invattn.bijections import Bijection
from invattn.solvers import Status
from invattn.testing.oracles import (
    dense_jacobian,
    evaluation_mode,
    gradients,
    require,
    require_close,
    sample_size,
    trainable,
)


def check_bijection(
    bijection: Bijection,
    x: Tensor,
    *,
    tolerance: float | None = None,
    log_det_tolerance: float | None = None,
    fresh: Bijection | None = None,
) -> None:
    """Check a bijection at one batch: both round trips, the report, log-determinants, copies.

    Args:
        bijection: The bijection; checked in evaluation mode.
        x: Inputs with shape (B, ...), B >= 2.
        tolerance: What a round trip may be off by, in units of max(1, max|x|); None is 1e-10 in float64 and 1e-4 in
            float32.
        log_det_tolerance: How close log-determinants must come to that of the dense Jacobian; None (for sampled
            estimators) checks only their shapes, dtypes and that they are finite.
        fresh: A newly made instance with other weights, which must equal the bijection once it has loaded its
            state_dict; None leaves that law out.

    Raises:
        AssertionError: If a law is broken.
        ConvergenceError: If the inverse does not converge.
    """
    limit = (1e-10 if x.dtype == torch.float64 else 1e-4) if tolerance is None else tolerance
    with evaluation_mode(bijection):
        _check_round_trips(bijection, x, limit)
        _check_report(bijection, x, limit)
        _check_log_dets(bijection, x, limit, log_det_tolerance)
        _check_copies(bijection, x, fresh)


def _check_round_trips(bijection: Bijection, x: Tensor, tolerance: float) -> None:
    before, required = x.clone(), x.requires_grad
    with torch.no_grad():
        z = bijection(x)
        require(z.shape[0] == x.shape[0] and z.numel() == x.numel(), f"f(x) has shape {tuple(z.shape)}.")
        require(z.dtype == x.dtype and z.isfinite().all(), f"f(x) is {z.dtype} or not finite.")
        require(torch.equal(bijection(x), z), "f gave two different values for one input in evaluation mode.")
        back = bijection.inverse(z)
        require_close(back, x, tolerance=tolerance, what="inverse(f(x))")
        require_close(bijection(back), z, tolerance=tolerance, what="f(inverse(z))")
        alone = torch.cat([bijection(sample[None]) for sample in x])
        require_close(alone, z, tolerance=tolerance, what="f of a sample alone, against f of the batch,")
        alone = torch.cat([bijection.inverse(sample[None]) for sample in z])
        require_close(alone, back, tolerance=tolerance, what="inverse of a sample alone, against that of the batch,")
    require(torch.equal(x, before) and x.requires_grad == required, "the input was changed.")


def _check_report(bijection: Bijection, x: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        z = bijection(x)
    kept = z.clone()
    solution = bijection.solve(z)
    require(torch.equal(z, kept), "solve changed its input.")
    require(not solution.value.requires_grad, "solve recorded gradients.")
    for name in ("converged", "residual", "num_steps", "status"):
        shape = tuple(getattr(solution, name).shape)
        require(shape == (x.shape[0],), f"solution.{name} has shape {shape}; expected one entry a sample.")
    require(solution.converged.all(), f"solve did not converge: {solution.failures()}.")
    require((solution.status == int(Status.CONVERGED)).all(), "status and converged contradict each other.")
    require_close(solution.value, x, tolerance=tolerance, what="solve(f(x)).value")
    if solution.error_bound is not None:
        error = sample_size(solution.value - x, norm=bijection.norm or "inf,2")
        worst = float((error - solution.error_bound).max())
        require(worst <= 0, f"the error exceeds its proven bound by {worst:.3g}.")


def _check_log_dets(bijection: Bijection, x: Tensor, tolerance: float, log_det_tolerance: float | None) -> None:
    with torch.no_grad():
        z, log_det = bijection.forward_and_log_det(x)
        back, inverse_log_det = bijection.inverse_and_log_det(z)
        require_close(z, bijection(x), tolerance=tolerance, what="the first result of forward_and_log_det")
    require_close(back, x, tolerance=tolerance, what="the first result of inverse_and_log_det")
    for name, value in (("forward", log_det), ("inverse", inverse_log_det)):
        require(value.shape == x.shape[:1], f"the {name} log-determinant has shape {tuple(value.shape)}.")
        require(value.dtype == x.dtype, f"the {name} log-determinant is {value.dtype} for inputs of {x.dtype}.")
        require(value.isfinite().all(), f"the {name} log-determinant is not finite.")
        require(not value.requires_grad, f"the {name} log-determinant has a gradient under no_grad.")
    if log_det_tolerance is None:
        return
    exact = torch.linalg.slogdet(dense_jacobian(bijection, x)).logabsdet
    require_close(log_det, exact, tolerance=log_det_tolerance, what="the log-determinant of f")
    require_close(inverse_log_det, -exact, tolerance=log_det_tolerance, what="the log-determinant of the inverse")


def _check_copies(bijection: Bijection, x: Tensor, fresh: Bijection | None) -> None:
    with torch.no_grad():
        z = bijection(x)
        require(torch.equal(copy.deepcopy(bijection)(x), z), "a deep copy gives other values.")
        if fresh is None:
            return
        fresh.load_state_dict(bijection.state_dict())
        with evaluation_mode(fresh):
            require(torch.equal(fresh(x), z), "a fresh instance with the loaded state_dict gives other values.")
            same = torch.equal(fresh.solve(z).value, bijection.solve(z).value)
            require(same, "a fresh instance with the loaded state_dict inverts to other values.")


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
