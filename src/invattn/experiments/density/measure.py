"""Measure a trained flow on test samples: its metrics, and the importance-weighted bound of whole grey levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from invattn.experiments.density.data import NATS, DensityData, DequantisedData, Unit
from invattn.experiments.density.likelihood import (
    EXACT_DIMENSIONS,
    TARGET_ERROR,
    UNBIASED,
    LikelihoodReport,
    block_radii,
    inverse_errors,
    measure_likelihood,
    refusal,
    score,
    with_estimator,
)
from invattn.experiments.density.record import DensityMetrics, DensityResult
from invattn.experiments.kit.progress import Progress, task_of
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Dequantised, Flow, bits_per_dimension
from invattn.hub import certificate_of
from invattn.hub.flow_config import whole_valued
from invattn.logdet import Exact

INVERTED = 100
"""Test samples that are inverted and whose spectral radii are estimated."""

TARGET_BIAS = 0.002
"""Bits per dimension by which random probes may make the bound of several draws too low."""

_BATCH, _MOST_ROUNDS = 50, 16


class FlowInputs(NamedTuple):
    """Samples that a flow is measured on.

    Attributes:
        x: As the flow takes them, shape (n, *event).
        cost: What is added to -log p(x) of each sample, in nats, shape (n,): with learned noise
            d log levels + log q(u | v), which makes it the evidence lower bound of -log P(v); else 0.
    """

    x: Tensor
    cost: Tensor


@torch.no_grad()
def inputs_of_test(flow: Flow, data: DensityData) -> FlowInputs:
    """Return the test samples of a data set on the device of a flow, the same at every call.

    Learned noise is made of the same normal draws for every flow, so that differences of flows stay comparable.
    """
    device = next(flow.parameters()).device
    if not (isinstance(data, DequantisedData) and data.learned):
        x = data.test().to(device)
        return FlowInputs(x, torch.zeros(len(x), device=device))
    model = whole_valued(flow, levels=data.levels)
    generator = torch.Generator().manual_seed(derive_seed(data.seed, "test noise"))
    parts = [model.spread(values.to(device), generator=generator) for values in torch.split(data.images.test, _BATCH)]
    return FlowInputs(torch.cat([x for x, _ in parts]), torch.cat([cost for _, cost in parts]))


def unmeasured(variant: str, flow: Flow, *, seed: int, unit: Unit = NATS) -> DensityResult:
    """Return the result of a flow of which only parameters and certificate are known yet."""
    certificate, unknown = certificate_of(flow.bijection), float("nan")
    return DensityResult(
        variant=variant,
        metrics=DensityMetrics(
            per_dim=None,
            standard_error=None,
            median=unknown,
            outliers=0,
            estimator_error=unknown,
            inverse_error_max=unknown,
            spectral_radius_max=unknown,
            unit=unit.name.partition("/")[0],
        ),
        seed=seed,
        cpu_seconds=unknown,
        parameters=sum(parameter.numel() for parameter in flow.parameters()),
        certificate=None if certificate is None else {name: certificate[name] for name in ("bound", "norm")},
    )


def measure(
    flow: Flow, test: FlowInputs, result: DensityResult, progress: Progress, *, seed: int, unit: Unit = NATS
) -> tuple[DensityResult, LikelihoodReport]:
    """Return a result with the metrics of its flow on test samples, and the likelihood of every sample.

    The flow is in eval mode, on the device to measure on; the seed decides probes and first vectors.
    """
    x = test.x
    generator = torch.Generator(device=x.device).manual_seed(derive_seed(seed, "evaluation"))
    with task_of(progress, f"evaluate {result.variant}", total=len(x)):
        found = measure_likelihood(
            flow,
            x,
            target_error=TARGET_ERROR / unit.scale,
            cost=test.cost,
            generator=generator,
            on_batch=progress.advance,
        )
        radii = block_radii(flow.bijection, x[:INVERTED], generator=generator)
        errors = inverse_errors(flow.bijection, x[:INVERTED])
    refused = refusal(flow, radii)
    metrics = replace(
        result.metrics,
        per_dim=None if refused else unit.of(found.mean),
        standard_error=None if refused else unit.scale * found.standard_error,
        median=unit.of(found.median),
        outliers=found.outliers,
        estimator_error=unit.scale * found.estimator_error,
        inverse_error_max=float(errors.max()),
        spectral_radius_max=max((float(radius.max()) for radius in radii.values()), default=0.0),
    )
    return replace(result, refused=refused, metrics=metrics), found


@dataclass(frozen=True)
class ImportanceBound:
    """How many bits the grey levels need, from above.

    Attributes:
        samples: Draws of the dequantisation noise for each image.
        bits_per_dim: Mean over images of -log2 of the mean of p(v + u) / q(u | v) over the draws, per dimension; in
            expectation no less than -log2 P(v) / d, and the nearer the more draws. One draw is the evidence lower
            bound.
        standard_error: Standard error of that mean over the images.
        probe_bias: By how much random probes of the log-determinants may make it too low on average, an estimate; 0
            where those are exact, and for one draw.
    """

    samples: int
    bits_per_dim: float
    standard_error: float
    probe_bias: float = 0.0


@torch.no_grad()
def importance_bound(
    flow: Flow, data: DequantisedData, *, samples: int, seed: int, progress: Progress
) -> ImportanceBound:
    """Bound -log2 P(v) / d of the test images, with the noise of the flow: uniform or learned.

    Above 256 dimensions log-determinants are estimated without bias. For one draw so is the bound. The mean of
    exponentials over several draws turns the noise of the probes into a bias of at most about half its variance in
    nats (never more, if the noise is normal): probes are added until it is below ``TARGET_BIAS``, 64 of each
    log-determinant at most, and what is left is reported.

    References:
        Burda et al. 2016; Theis et al. 2016.
    """
    device = next(flow.parameters()).device
    generator = torch.Generator(device=device).manual_seed(derive_seed(seed, "importance"))
    exact = data.dimensions <= EXACT_DIMENSIONS
    estimator = Exact() if exact else replace(UNBIASED, generator=generator)
    model = whole_valued(with_estimator(flow, estimator), levels=data.levels)
    target = math.inf if exact or samples == 1 else TARGET_BIAS
    found, biases = [], []
    with task_of(progress, f"bound by {samples} draws", total=data.test_size):
        for part in torch.split(data.images.test, _BATCH):
            drawn = [_draw(model, part.to(device), target=target, generator=generator) for _ in range(samples)]
            bound = torch.stack([value for value, _ in drawn]).logsumexp(dim=0) - math.log(samples)
            found.append(bits_per_dimension(bound.cpu(), data.dimensions))
            biases.append(torch.stack([bias for _, bias in drawn]).mean(dim=0).cpu())
            progress.advance(len(part))
    bits = torch.cat(found)
    bias = 0.0 if samples == 1 else float(torch.cat(biases).mean())
    return ImportanceBound(samples, float(bits.mean()), float(bits.std() / math.sqrt(len(bits))), bias)


def _draw(model: Dequantised, values: Tensor, *, target: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return log p(v + u) - log q(u | v) at one draw of u in nats, and its bias, both with shape (B,), float64.

    Probes are drawn until the mean bias, half their variance, is at most ``target`` bits per dimension.
    """
    x, cost = model.spread(values, generator=generator)
    log_p, variance = (torch.zeros_like(cost, dtype=torch.float64) for _ in range(2))
    bias, rounds = variance, 0
    while rounds == 0 or (float(bias.mean()) > target and rounds < _MOST_ROUNDS):
        value, spread = score(model.flow, x)
        log_p -= value.double()
        variance += spread.double().square()
        rounds += 1
        bias = variance / rounds**2 / 2 / (x[0].numel() * math.log(2))
    return log_p / rounds - cost.double(), bias
