"""The importance-weighted bound of the probability of whole grey levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from invattn.evaluation import EXACT_DIMENSIONS, UNBIASED, with_estimator
from invattn.experiments.density_data import DequantisedData
from invattn.flows import Dequantised, Flow
from invattn.flows.dequantised import bits_per_dimension
from invattn.logdet import Exact
from invattn.training import Progress, derive_seed

_BATCH = 50


@dataclass(frozen=True)
class ImportanceBound:
    """How many bits the grey levels need, from above.

    Attributes:
        samples: Draws of the dequantisation noise for each image.
        bits_per_dim: Mean over images of -log2 of the mean of p(v + u) over the draws, per dimension; in expectation
            no less than -log2 P(v) / d, and the nearer the more draws.
        standard_error: Standard error of that mean over the images.
    """

    samples: int
    bits_per_dim: float
    standard_error: float


@torch.no_grad()
def importance_bound(
    flow: Flow, data: DequantisedData, *, samples: int, seed: int, progress: Progress
) -> ImportanceBound:
    """Bound -log2 P(v) / d of the test images with uniform noise.

    Above 256 dimensions log-determinants are estimated, and their noise makes the bound of an image too small by about
    half its variance in nats, which is little beside d.

    Args:
        flow: The distribution of v + u, in eval mode.
        data: Its test images.
        samples: Draws of the noise for each image, at least 1.
        seed: Decides noise and probes.
        progress: Is told of every batch.

    References:
        Burda et al. 2016; Theis et al. 2016.
    """
    device = next(flow.parameters()).device
    generator = torch.Generator(device=device).manual_seed(derive_seed(seed, "importance"))
    exact = data.dimensions <= EXACT_DIMENSIONS
    estimator = Exact() if exact else replace(UNBIASED, generator=generator)
    model = Dequantised(with_estimator(flow, estimator), levels=data.levels)
    progress.begin(f"bound by {samples} draws", total=data.test_size)
    found = []
    try:
        for part in torch.split(data.images.test, _BATCH):
            bound = model.log_prob_bound(part.to(device), samples=samples, generator=generator)
            found.append(bits_per_dimension(bound.double().cpu(), data.dimensions))
            progress.advance(len(part))
    finally:
        progress.end()
    bits = torch.cat(found)
    return ImportanceBound(samples, float(bits.mean()), float(bits.std() / math.sqrt(len(bits))))
