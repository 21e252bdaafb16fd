"""The laws of a log-determinant estimator."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.logdet import LogDetEstimator
from invattn.testing.oracles import dense_log_det, evaluation_mode, gradients, require, require_close, trainable

_GROUPS = 16


def check_log_det_estimator(
    estimator: LogDetEstimator,
    branch: Branch,
    x: Tensor,
    *,
    draws: int = 1,
    bias: float = 0.0,
    standard_errors: float = 5.0,
    tolerance: float = 1e-8,
) -> None:
    """Check an estimator against slogdet of the dense Jacobian: value, gradient, weights of samples.

    The loss weights are 0, 1, 2, ... a sample, so that an estimator that applies one sample's weight to all fails.

    Args:
        estimator: The estimator.
        branch: A branch; evaluated in evaluation mode.
        x: What it takes, shape (B, ...), B >= 2, float64, a sample small.
        draws: How many estimates are averaged; 1 for an exact estimator, a multiple of 16 for a sampled one.
        bias: What truncation may add to value and gradients.
        standard_errors: How many standard errors the mean of a sampled estimator may be off.
        tolerance: What rounding may do, relative to max(1, the value).

    Raises:
        AssertionError: If a law is broken.
    """
    with evaluation_mode(branch):
        _check_form(estimator, branch, x)
        weights = torch.arange(x.shape[0], dtype=x.dtype, device=x.device)
        point = x.detach().clone().requires_grad_()
        inputs = [point, *trainable(branch)]
        exact = dense_log_det(branch, point)
        wanted = gradients((weights * exact).sum(), inputs)
        if draws == 1:
            _, value = estimator(branch, point)
            require_close(value, exact, tolerance=tolerance + bias, what="the log-determinant")
            found = gradients((weights * value).sum(), inputs)
            for grad, expected in zip(found, wanted, strict=True):
                require_close(grad, expected, tolerance=tolerance + bias, what="a gradient of the log-determinant")
            return
        require(draws % _GROUPS == 0, f"draws must be a multiple of {_GROUPS}.")
        values, grads = _sampled(estimator, branch, point, weights, draws)
        slack = bias + tolerance
        _require_mean(values, exact.detach(), standard_errors, slack, "the log-determinant")
        for samples, expected in zip(grads, wanted, strict=True):
            _require_mean(samples, expected, standard_errors, slack, "a gradient of the log-determinant")


def _check_form(estimator: LogDetEstimator, branch: Branch, x: Tensor) -> None:
    with torch.no_grad():
        for batch in (x, x[:1]):
            image, value = estimator(branch, batch)
            require_close(image, branch(batch), tolerance=1e-12, what="the first result, against g(x),")
            require(value.shape == batch.shape[:1], f"the log-determinant has shape {tuple(value.shape)}.")
            require(value.dtype == x.dtype, f"the log-determinant is {value.dtype} for tokens of {x.dtype}.")
            require(not value.requires_grad, "the log-determinant has a gradient under no_grad.")
            require(value.isfinite().all(), "the log-determinant is not finite.")
    point = x.detach().clone()
    estimator(branch, point)
    require(torch.equal(point, x) and not point.requires_grad, "the estimator changed its input.")


def _sampled(
    estimator: LogDetEstimator, branch: Branch, point: Tensor, weights: Tensor, draws: int
) -> tuple[Tensor, list[Tensor]]:
    """Return group means of values and of gradients, each with a leading axis of groups."""
    inputs = [point, *trainable(branch)]
    copies = draws // _GROUPS
    values: list[Tensor] = []
    grads: list[list[Tensor]] = []
    for _ in range(_GROUPS):
        _, value = estimator(branch, point.repeat(copies, *(1 for _ in point.shape[1:])))
        mean = value.view(copies, -1).mean(dim=0)
        values.append(mean.detach())
        grads.append(gradients((weights * mean).sum(), inputs))
    return torch.stack(values), [torch.stack(parts) for parts in zip(*grads, strict=True)]


def _require_mean(samples: Tensor, expected: Tensor, standard_errors: float, slack: float, what: str) -> None:
    error = samples.std(dim=0) / samples.shape[0] ** 0.5
    excess = (samples.mean(dim=0) - expected).abs() - standard_errors * error - slack
    worst = float(excess.max())
    require(worst <= 0, f"the mean of {what} is off by {worst:.3g} more than {standard_errors} standard errors allow.")
