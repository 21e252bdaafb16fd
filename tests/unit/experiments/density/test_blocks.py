"""What each block of a flow does, against a direct computation; how far a place reaches, against Jacobians."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from invattn.bijections import Composed, ResidualBijection, initialize
from invattn.branches import Branch
from invattn.experiments.density.blocks import ReceptiveField, block_effects, receptive_fields
from invattn.experiments.density.likelihood import block_inputs, with_estimator
from invattn.flows import Flow, MultiscaleIResNet, StandardNormal, token_flow
from invattn.logdet import Exact


@pytest.fixture(scope="module")
def flow() -> Flow:
    torch.manual_seed(0)
    made = MultiscaleIResNet(
        (1, 4, 4),
        blocks=(1, 1),
        hidden_channels=4,
        attention="dot_product",
        attention_positions="interleaved:1",
        prior_channels=4,
    ).double()
    initialize(made.bijection, torch.randn(64, 1, 4, 4, dtype=torch.float64))
    return made.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_block_is_named_in_the_order_of_the_data(flow: Flow, images: torch.Tensor) -> None:
    found = block_effects(flow, images, seed=0, without=False)
    assert [effect.kind for effect in found] == ["convolution", "dot_product attention"] * 2
    assert all(isinstance(flow.bijection.get_submodule(effect.path), ResidualBijection) for effect in found)
    assert all(0 < effect.size < 1 for effect in found)
    assert all(effect.change != effect.change for effect in found), "nothing was left out, so nothing was measured"


def test_log_determinants_and_changes_agree_with_exact_ones(flow: Flow, images: torch.Tensor) -> None:
    """Every image is there twenty times, so that each mean has twenty probes an image."""
    seeds = 8
    runs = [block_effects(flow, images.repeat(20, 1, 1, 1), seed=1000 * seed) for seed in range(seeds)]
    exact = with_estimator(flow, Exact())
    whole = -exact.log_prob(images) / 16
    with torch.no_grad():
        for number, effect in enumerate(runs[0]):
            draws = torch.tensor([[run[number].log_det, run[number].change] for run in runs])
            mean, spread = draws.mean(dim=0), draws.std(dim=0) / seeds**0.5
            reaching = {}
            block = exact.bijection.get_submodule(effect.path)
            handle = block.register_forward_pre_hook(lambda _, inputs, kept=reaching: kept.update(x=inputs[0]))
            exact.bijection(images)
            handle.remove()
            assert isinstance(block, ResidualBijection)
            log_det = float(block.forward_and_log_det(reaching["x"])[1].mean()) / 16
            shorter = copy.deepcopy(exact)
            shorter.bijection.set_submodule(effect.path, Composed([]))
            change = float((-shorter.log_prob(images) / 16 - whole).mean())
            # 5 standard errors, themselves estimated from 8 runs; 12 terms leave less than 1e-5 at these radii.
            assert abs(mean[0] - log_det) < 5 * spread[0] + 1e-5
            assert abs(mean[1] - change) < 5 * spread[1] + 1e-5
            assert abs(log_det) > 1e-5
            assert abs(change) > 1e-5


def test_probes_are_paired(flow: Flow, images: torch.Tensor) -> None:
    """The same seed gives the same numbers, and a block without effect changes nothing at all."""
    assert block_effects(flow, images, seed=3) == block_effects(flow, images, seed=3)
    idle = copy.deepcopy(flow)
    path = block_effects(flow, images, seed=3, without=False)[1].path
    block = idle.bijection.get_submodule(path)
    assert isinstance(block, ResidualBijection)
    block.g = _Zero()
    effects = block_effects(idle, images, seed=3)
    assert effects[1].change == pytest.approx(0.0, abs=1e-12)
    assert effects[1].log_det == 0.0
    assert effects[1].size == 0.0


class _Zero(Branch):
    """g = 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * x


def test_the_flow_is_left_as_it_was(flow: Flow, images: torch.Tensor) -> None:
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    parts = [type(part) for part in flow.modules()]
    estimators = [part.log_det_estimator for part in flow.modules() if isinstance(part, ResidualBijection)]
    state = torch.random.get_rng_state()
    block_effects(flow, images, seed=0)
    assert [type(part) for part in flow.modules()] == parts
    assert [part.log_det_estimator for part in flow.modules() if isinstance(part, ResidualBijection)] == estimators
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_token_flows_have_effects_too() -> None:
    made = token_flow(2, blocks=1, attention_layers=1, hidden_channels=(4,))
    sets = torch.randn(20, 5, 2)
    initialize(made, sets)
    found = block_effects(Flow(made, StandardNormal((5, 2))), sets, seed=0)
    assert [effect.kind for effect in found] == ["embedded_gaussian attention", "MLP"]


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
