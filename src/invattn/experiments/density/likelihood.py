"""Measure what a flow says of test samples: likelihoods, and whether its maps may be trusted with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from invattn.bijections import Bijection, ResidualBijection
from invattn.diagnosis import spectral_radius
from invattn.flows import Flow
from invattn.logdet import Exact, LogDetEstimator, RussianRoulette
from invattn.solvers import Solution

EXACT_DIMENSIONS = 256
"""Up to this many entries of a sample the whole Jacobian is affordable."""

TARGET_ERROR = 0.005
"""Largest standard error, in nats per dimension, that random probes may add to a mean."""

OUTLIER_RANGES = 10.0
"""Distance from the median, in interquartile ranges, from which on a sample is an outlier."""

UNBIASED = RussianRoulette(exact_terms=10, probes=4)
"""Estimator where the whole Jacobian is not affordable; give it a generator."""

_MOST_ROUNDS = 64


@dataclass(frozen=True)
class LikelihoodReport:
    """What was measured of every test sample; every tensor has shape (n,).

    Attributes:
        nats: -log p(x) / d, in nats per dimension, float64.
        estimator_error: Standard error that random probes add to the mean of ``nats``; 0 where it is exact.
        exact: Whether the log-determinants are exact.
        outliers: Number of samples that are not finite or far from the median.
    """

    nats: Tensor
    estimator_error: float
    exact: bool
    outliers: int

    @property
    def mean(self) -> float:
        """Mean of ``nats``."""
        return float(self.nats.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over the samples."""
        return float(self.nats.std() / math.sqrt(len(self.nats)))

    @property
    def median(self) -> float:
        """Median of ``nats``; samples that are not finite count as infinitely bad."""
        return float(self.nats.nan_to_num(nan=math.inf).quantile(0.5))


def with_estimator(flow: Flow, estimator: LogDetEstimator) -> Flow:
    """Return a copy of a flow in eval mode whose blocks use another estimator of the log-determinant.

    Blocks that map each token by itself with an exact estimator keep it.
    """
    other = copy.deepcopy(flow).eval()
    for part in other.modules():
        if isinstance(part, ResidualBijection) and not part.log_det_estimator.needs_separate_tokens:
            part.log_det_estimator = estimator
    return other


@torch.no_grad()
def measure_likelihood(
    flow: Flow,
    x: Tensor,
    *,
    batch_size: int = 100,
    target_error: float = TARGET_ERROR,
    exact: bool | None = None,
    cost: Tensor | None = None,
    generator: torch.Generator | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> LikelihoodReport:
    """Measure -log p of test samples, exactly where the dimension allows it, else without bias.

    Args:
        flow: The distribution.
        x: Samples with shape (n, ...).
        batch_size: Samples that go through the flow together.
        target_error: Rounds of four probes are added until the probes' share of the error of the mean is below it.
        exact: Whether log-determinants come from whole Jacobians; None: for samples of up to 256 entries.
        cost: Nats that are added to -log p of each sample, shape (n,), such as those of learned noise; None for none.
        generator: Where probes come from; None is torch's default generator.
        on_batch: Called with the number of samples done, after each batch of a round.
    """
    dimensions = x[0].numel()
    exact = dimensions <= EXACT_DIMENSIONS if exact is None else exact
    measured = with_estimator(flow, Exact() if exact else replace(UNBIASED, generator=generator))
    total, variance = torch.zeros(2, len(x), dtype=torch.float64)
    rounds, error = 0, math.inf
    while rounds == 0 or (error > target_error and rounds < _MOST_ROUNDS):
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            value, spread = score(measured, x[rows])
            total[rows] += value.double().cpu() / dimensions
            variance[rows] += (spread.double().cpu() / dimensions).square()
            if on_batch is not None:
                on_batch(len(value))
        rounds += 1
        error = float(variance.sum().sqrt()) / rounds / len(x)
    nats = total / rounds
    if cost is not None:
        nats = nats + cost.double().cpu() / dimensions
    return LikelihoodReport(nats, estimator_error=error, exact=exact, outliers=count_outliers(nats))


def score(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return -log p(x) and the standard error that random probes add to each, both with shape (B,)."""
    z, report = flow.bijection.forward_and_log_det_report(x)
    assert report.standard_error is not None, "the estimators of an evaluation draw at least two probes"
    log_base: Tensor = flow.base.log_prob(z)
    return -(log_base + report.value), report.standard_error


def count_outliers(values: Tensor) -> int:
    """Count values that are not finite, or more than 10 interquartile ranges from the median."""
    finite = values[values.isfinite()]
    if finite.numel() == 0:
        return values.numel()
    low, middle, high = (float(q) for q in finite.quantile(finite.new_tensor([0.25, 0.5, 0.75])))
    far = (finite - middle).abs() > OUTLIER_RANGES * max(high - low, 1e-12)
    return values.numel() - finite.numel() + int(far.sum())


@torch.no_grad()
def inverse_errors(bijection: Bijection, x: Tensor) -> Tensor:
    """Return max |x - y| of each sample, where y solves f(y) = f(x); infinite where y is not finite. Shape (n,)."""
    return compare(bijection.solve(bijection(x)), x)


def compare(solution: Solution, x: Tensor) -> Tensor:
    """Return the largest |entry| of x less what an inverse gave back, infinite where it is not finite, shape (n,)."""
    error = (solution.value - x).abs().flatten(1).amax(dim=1)
    return error.nan_to_num(nan=math.inf, posinf=math.inf)


@torch.no_grad()
def block_radii(bijection: Bijection, x: Tensor, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Estimate the spectral radius of J_g of every residual block, at its own input, from samples with shape (B, ...).

    Returns:
        Path of the block -> estimates with shape (B,); infinite where one could not be found.
    """
    radii = {
        name: spectral_radius(block.branch, point, generator=generator)
        for name, (block, point) in block_inputs(bijection, x).items()
    }
    return {name: radius.nan_to_num(nan=math.inf, posinf=math.inf) for name, radius in radii.items()}


@torch.no_grad()
def block_inputs(bijection: Bijection, x: Tensor) -> dict[str, tuple[ResidualBijection, Tensor]]:
    """Return every residual block inside a bijection with what reaches it, in the order in which data do.

    Returns:
        Path of the block (empty for the bijection itself) -> the block and its input.
    """
    found: dict[str, tuple[ResidualBijection, Tensor]] = {}
    names = {part: name for name, part in bijection.named_modules() if isinstance(part, ResidualBijection)}

    def keep(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(block, ResidualBijection)
        found[names[block]] = (block, inputs[0])

    handles = [block.register_forward_pre_hook(keep) for block in names]
    try:
        bijection(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def refusal(flow: Flow, radii: dict[str, Tensor]) -> str | None:
    """Say why a flow has no likelihood to report, or return None where it has one.

    An uncertified block whose spectral radius reaches 1 may not be invertible, and its series for the log-determinant
    diverges: numbers that look like likelihoods then mean nothing.
    """
    for name, radius in radii.items():
        block = flow.bijection.get_submodule(name)
        assert isinstance(block, ResidualBijection)
        worst = float(radius.max())
        if not block.certified and worst >= 1:
            return (
                f"block {name} ({block.branch.kind}) has no certificate and its measured spectral radius reaches "
                f"{worst:.3g} on {int((radius >= 1).sum())} of {len(radius)} test samples: the map may not be "
                "invertible there and the series of its log-determinant diverges"
            )
    return None
