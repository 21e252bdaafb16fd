"""Measure a trained flow on test samples."""

from __future__ import annotations

from dataclasses import replace

import torch

from invattn.experiments.density.data import NATS, Unit
from invattn.experiments.density.likelihood import (
    TARGET_ERROR,
    LikelihoodReport,
    block_radii,
    inverse_errors,
    measure_likelihood,
    refusal,
)
from invattn.experiments.density.noise import FlowInputs
from invattn.experiments.density.record import DensityMetrics, DensityResult
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Flow
from invattn.hub.certificate import certificate_of

INVERTED = 100
"""Test samples that are inverted and whose spectral radii are estimated."""


def unmeasured(variant: str, flow: Flow, *, seed: int, unit: Unit = NATS) -> DensityResult:
    """Return the result of a flow of which only parameters and certificate are known yet.

    Args:
        variant: Name of the flow.
        flow: The distribution.
        seed: Of its training.
        unit: In which its metrics will be.
    """
    certificate = certificate_of(flow.bijection)
    return DensityResult(
        variant=variant,
        metrics=replace(_NOT_MEASURED, unit=_name(unit)),
        seed=seed,
        cpu_seconds=float("nan"),
        parameters=sum(parameter.numel() for parameter in flow.parameters()),
        certificate=None if certificate is None else {name: certificate[name] for name in ("bound", "norm")},
    )


_NOT_MEASURED = DensityMetrics(
    per_dim=None,
    standard_error=None,
    median=float("nan"),
    outliers=0,
    estimator_error=float("nan"),
    inverse_error_max=float("nan"),
    spectral_radius_max=float("nan"),
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
    progress.begin(f"evaluate {result.variant}", total=len(x))
    try:
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
    finally:
        progress.end()
    refused = refusal(flow, radii)
    metrics = DensityMetrics(
        per_dim=None if refused else unit.of(found.mean),
        standard_error=None if refused else unit.scale * found.standard_error,
        median=unit.of(found.median),
        outliers=found.outliers,
        estimator_error=unit.scale * found.estimator_error,
        inverse_error_max=float(errors.max()),
        spectral_radius_max=max((float(radius.max()) for radius in radii.values()), default=0.0),
        unit=_name(unit),
    )
    return replace(result, refused=refused, metrics=metrics), found


def _name(unit: Unit) -> str:
    return unit.name.partition("/")[0]
