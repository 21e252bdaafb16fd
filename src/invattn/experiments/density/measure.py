"""Measure a trained flow on test samples as it sees them: images with the noise that spreads their grey levels."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from invattn.experiments.density.data import NATS, DensityData, DequantisedData, Unit
from invattn.experiments.density.likelihood import (
    TARGET_ERROR,
    LikelihoodReport,
    block_radii,
    inverse_errors,
    measure_likelihood,
    refusal,
)
from invattn.experiments.density.record import DensityMetrics, DensityResult
from invattn.experiments.kit.progress import Progress, task_of
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Dequantisation, Dequantised, Flow
from invattn.hub import certificate_of

INVERTED = 100
"""Test samples that are inverted and whose spectral radii are estimated."""

_BATCH = 50


class FlowInputs(NamedTuple):
    """Samples that a flow is measured on.

    Attributes:
        x: As the flow takes them, shape (n, *event).
        cost: What is added to -log p(x) of each sample, in nats, shape (n,): with learned noise
            d log levels + log q(u | v), which makes it the evidence lower bound of -log P(v); else 0.
    """

    x: Tensor
    cost: Tensor


def whole_valued(flow: Flow, *, levels: int) -> Dequantised:
    """Return the distribution of whole grey levels that a flow over images makes, with its noise if that is learned.

    Args:
        flow: What an :class:`invattn.hub.ImageFlowConfig` describes; learned noise is kept in its bijection.
        levels: Number of grey levels.
    """
    learned = dict(flow.bijection.named_children()).get("dequantisation")
    assert learned is None or isinstance(learned, Dequantisation)
    return Dequantised(flow, learned, levels=levels)


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
    """Return the result of a flow of which only parameters and certificate are known yet.

    Args:
        variant: Name of the flow.
        flow: The distribution.
        seed: Of its training.
        unit: In which its metrics will be.
    """
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

    Args:
        flow: The trained distribution, in eval mode, on the device to measure on.
        test: Test samples.
        result: What is known of it already.
        progress: Is told of every batch.
        seed: Decides probes and first vectors.
        unit: Of the metrics.
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
