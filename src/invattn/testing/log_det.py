"""The laws of a log-determinant estimator."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.branches import Branch
from invattn.logdet import LogDetEstimator
from invattn.testing.oracles import (
    dense_log_det,
    dense_series,
    evaluation_mode,
    gradients,
    require,
    require_close,
    trainable,
)

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


def check_log_det_mean(
    estimator: LogDetEstimator,
    branch: Branch,
    x: Tensor,
    *,
    terms: int | None = None,
    rounds: int = 40,
    copies: int = 100,
    standard_errors: float = 3.0,
    generator: torch.Generator | None = None,
) -> None:
    """Check the mean of many draws, and of their gradients, against the dense Jacobian.

    What is compared is the sum of the log-determinants of all samples but the first, whose weight is 0, and its
    gradients by x and by the parameters, each along one random direction. Copies of the batch are drawn together;
    errors are estimated from the rounds, as an estimator may share a random number among the samples of a batch.

    Args:
        estimator: The estimator.
        branch: A branch; evaluated in evaluation mode.
        x: What it takes, shape (B, ...), B >= 2, float64, a sample small.
        terms: The series is compared as it is cut after so many terms; None is the whole log-determinant.
        rounds: Independent draws of all copies, at least 2.
        copies: Copies of the batch in a round.
        standard_errors: How many of its standard errors the mean value may be off; gradients one more.
        generator: Where directions come from; None is torch's default generator.

    Raises:
        AssertionError: If a mean is off.
    """
    with evaluation_mode(branch):
        point = x.detach().clone().requires_grad_()
        inputs = [point, *trainable(branch)]
        directions = [torch.randn(entry.shape, dtype=x.dtype, device=x.device, generator=generator) for entry in inputs]
        directions[0][0] = 0
        exact = dense_log_det(branch, point) if terms is None else dense_series(branch, point, terms=terms)
        wanted, _ = _along(exact[1:].sum(), inputs, directions)
        draws = []
        for _ in range(rounds):
            _, value = estimator(branch, point.repeat(copies, *(1 for _ in x.shape[1:])))
            total = value.view(copies, -1).mean(dim=0)[1:].sum()
            found, by_x = _along(total, inputs, directions)
            require(not bool(by_x[0].any()), "a sample of weight 0 receives a gradient.")
            draws.append(found)
    slack = 1e-9 * (1 + wanted.abs())
    for name, distance, limit, rounding in zip(
        ("value", "gradient by x", "gradient by the parameters"),
        _distances(torch.stack(draws), wanted).unbind(),
        (standard_errors, standard_errors + 1, standard_errors + 1),
        slack.unbind(),
        strict=True,
    ):
        offset, error = float(distance[0]), float(distance[1])
        require(
            offset <= limit * error + float(rounding),
            f"the mean {name} of the log-determinant is off by {offset:.3g}, {offset / max(error, 1e-300):.3g} of its "
            f"standard errors (limit {limit:g}).",
        )


def _along(value: Tensor, inputs: list[Tensor], directions: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return a scalar, its derivatives along the direction of x and along that of all parameters; and that by x."""
    first, *others = gradients(value, inputs)
    by_parameters = sum(((g * d).sum() for g, d in zip(others, directions[1:], strict=True)), value.new_zeros(()))
    return torch.stack([value.detach(), (first * directions[0]).sum(), by_parameters]).detach(), first


def _distances(draws: Tensor, wanted: Tensor) -> Tensor:
    """Return how far each mean is off and its standard error, shape (3, 2)."""
    error = draws.std(dim=0) / draws.shape[0] ** 0.5
    return torch.stack([(draws.mean(dim=0) - wanted).abs(), error], dim=1)
