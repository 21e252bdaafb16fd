"""How far a place reaches: against whole Jacobians, and the reach that architectures allow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.bijections import ResidualBijection, initialize
from invattn.experiments.density.blocks import ReceptiveField, receptive_fields
from invattn.experiments.density.likelihood import block_inputs
from invattn.flows import Flow, MultiscaleIResNet, StandardNormal, token_flow


def image_flow(attention: str) -> tuple[Flow, Tensor]:
    flow = MultiscaleIResNet(
        (1, 16, 16),
        blocks=(2, 1),
        hidden_channels=4,
        attention=attention,
        attention_positions=[(0, 0)],
        kernel_sizes=(3, 1),
        whitening=4,
    ).double()
    images = torch.randn(200, 1, 16, 16, dtype=torch.float64)
    initialize(flow.bijection, images)
    return flow.eval(), images[:3]


def fields(attention: str) -> dict[str, ReceptiveField]:
    return {field.what: field for field in receptive_fields(*image_flow(attention))}


def test_a_convolution_reaches_its_kernel_and_attention_everything() -> None:
    found = fields("concatenation")
    assert list(found) == ["convolution", "scale", "attention"]
    assert all(field.place == (4, 4) and field.values.shape == (8, 8) for field in found.values())
    near = found["convolution"].values > 0
    assert near[3:6, 3:6].all(), "kernels of 3 and 1 pixels see one neighbour on each side"
    assert int(near.sum()) == 9
    assert (found["attention"].values > 0).all()
    assert (found["scale"].values > 0).all()


def test_without_attention_the_scale_reaches_as_far_as_its_kernels() -> None:
    found = fields("none")
    assert list(found) == ["convolution", "scale"]
    reached = found["scale"].values > 0
    assert reached[2:7, 2:7].all(), "two convolutions of one neighbour each"
    assert int(reached.sum()) == 25
    assert list(fields("pointwise")) == ["convolution", "scale"], "P = I is no attention"


@pytest.mark.parametrize("what", ["convolution", "attention"])
def test_values_are_norms_of_blocks_of_the_jacobian(what: str) -> None:
    flow, images = image_flow("dot_product")
    field = {found.what: found for found in receptive_fields(flow, images)}[what]
    entries = list(block_inputs(flow.bijection, images).values())
    block, point = entries[0 if what == "convolution" else 1]
    assert isinstance(block, ResidualBijection)
    expected = torch.zeros(8, 8, dtype=torch.float64)
    for sample in point:
        jacobian = torch.autograd.functional.jacobian(lambda x: block(x[None])[0], sample)
        if what == "convolution":
            expected += jacobian[:, 4, 4].square().sum(dim=(0, 1)).sqrt() / len(point)
        else:
            expected += jacobian[4 * 8 + 4].square().sum(dim=(0, 2)).sqrt().view(8, 8) / len(point)
    torch.testing.assert_close(field.values, expected)


def test_no_gradient_is_left_behind() -> None:
    flow, images = image_flow("none")
    receptive_fields(flow, images)
    assert all(parameter.grad is None for parameter in flow.parameters())
    assert images.grad is None


def test_a_grid_of_one_place_has_no_field() -> None:
    flow = MultiscaleIResNet((1, 4, 4), blocks=(1,), hidden_channels=4, kernel_sizes=(1, 1), first_squeeze=4)
    images = torch.randn(40, 1, 4, 4)
    initialize(flow.bijection, images)
    assert receptive_fields(flow, images) == []


def test_flows_over_tokens_have_no_field() -> None:
    made = token_flow(2, blocks=1, attention_layers=1, hidden_channels=(4,))
    initialize(made, torch.randn(20, 5, 2))
    assert receptive_fields(Flow(made, StandardNormal((5, 2))), torch.randn(3, 5, 2)) == []
