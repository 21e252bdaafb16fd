"""Test samples as a flow sees them: images with the noise that their whole grey levels are spread by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invattn.experiments.density.data import DensityData, DequantisedData
from invattn.experiments.kit.training.loader import derive_seed
from invattn.flows import Dequantisation, Dequantised, Flow

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

    Args:
        flow: The distribution that they are for.
        data: The data set.
    """
    device = next(flow.parameters()).device
    if not (isinstance(data, DequantisedData) and data.learned):
        x = data.test().to(device)
        return FlowInputs(x, torch.zeros(len(x), device=device))
    model = whole_valued(flow, levels=data.levels)
    generator = torch.Generator().manual_seed(derive_seed(data.seed, "test noise"))
    parts = [model.spread(values.to(device), generator=generator) for values in torch.split(data.images.test, _BATCH)]
    return FlowInputs(torch.cat([x for x, _ in parts]), torch.cat([cost for _, cost in parts]))
