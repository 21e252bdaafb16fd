"""The arrays of figures of image flows and of flows in the plane."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from invattn.bijections import Composed, initialize
from invattn.experiments.density import figures
from invattn.experiments.density.figures import effect_arrays, make_image_figures, make_plane_figures, to_pictures
from invattn.experiments.density.sampling import nearest_images
from invattn.flows import Flow, MultiscaleIResNet, StandardNormal


@pytest.fixture
def flow() -> Flow:
    made = MultiscaleIResNet((1, 8, 8), blocks=(1, 1), hidden_channels=4, attention="gaussian", prior_channels=4)
    initialize(made.bijection, images(64, seed=1))
    return made.eval()


def images(count: int, *, seed: int, levels: int = 17) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    grey = torch.randint(0, levels, (count, 1, 8, 8), generator=generator)
    return (grey + torch.rand(grey.shape, generator=generator)) / levels - 0.5


def test_every_array_has_its_shape_and_content(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "IMAGES_SHOWN", 5)
    train, test = images(40, seed=2), images(12, seed=3)
    state = torch.random.get_rng_state()
    arrays = make_image_figures(flow, train, test, losses=[3.0, 2.9], seed=0, levels=17)
    assert torch.equal(state, torch.random.get_rng_state())
    assert {name: array.shape for name, array in arrays.items()} == {
        "losses": (2,),
        "real_images": (5, 8, 8, 3),
        "sample_temperatures": (3,),
        "sample_images": (3, 5, 8, 8, 3),
        "sample_failed": (3, 5),
        "walk_images": (2, 9, 8, 8, 3),
        "nearest_samples": (10, 8, 8, 3),
        "nearest_images": (10, 1, 8, 8, 3),
        "nearest_distance": (10, 1),
        "block_log_det": (3,),
        "block_size": (3,),
        "block_change": (3,),
        "block_change_error": (3,),
        "block_kinds": (3,),
        "field_names": (3,),
        "field_maps": (3, 4, 4),
        "field_place": (2,),
    }
    assert not arrays["sample_failed"].any()
    assert list(arrays["block_kinds"]) == ["convolution", "gaussian attention", "convolution"]
    assert np.array_equal(arrays["real_images"], to_pictures(test[:5], levels=17).numpy())
    for walk, (first, last) in enumerate(((0, 2), (1, 3))):
        ends = arrays["walk_images"][walk, [0, -1]].astype(int)
        # A grey level is 16 of 255; float32 may carry a value over the edge of one.
        assert np.abs(ends - to_pictures(test[[first, last]], levels=17).numpy()).max() <= 16
    assert (arrays["sample_images"][0] != arrays["sample_images"][2]).any()


def test_distances_are_in_grey_levels(flow: Flow) -> None:
    train, test = images(40, seed=2), images(12, seed=3)
    arrays = figures.neighbour_arrays(test, train, count=2, levels=17)
    expected = nearest_images(17 * test, 17 * train, count=2)
    np.testing.assert_allclose(arrays["nearest_distance"], expected.distance.numpy())
    assert np.array_equal(arrays["nearest_images"], to_pictures(train[expected.index], levels=17).numpy())


@pytest.mark.parametrize("levels", [17, 256])
def test_pictures_hold_grey_levels(levels: int) -> None:
    grey = torch.arange(levels).view(1, 1, 1, -1)
    shown = to_pictures((grey + 0.5) / levels - 0.5, levels=levels)
    assert shown.shape == (1, 1, levels, 3)
    assert shown[0, 0, :, 0].tolist() == [round(255 * level / (levels - 1)) for level in range(levels)]
    odd = torch.tensor([-9.0, 9.0, math.nan, math.inf]).view(1, 1, 1, 4)
    assert to_pictures(odd, levels=levels)[0, 0, :, 1].tolist() == [0, 255, 128, 255]
    assert to_pictures(torch.zeros(2, 3, 5, 7), levels=levels).shape == (2, 5, 7, 3)


def test_large_flows_have_no_effects(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    test = images(12, seed=3)
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    for count, found in ((12, True), (8, True), (7, False)):
        monkeypatch.setattr(figures, "EFFECT_BUDGET", count * 3 * parameters * 64)
        assert bool(effect_arrays(flow, test, seed=0)) == found


def test_the_density_of_the_plane_is_that_of_its_normal_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "PLANE_SIDE", 40)
    identity = _Moved()
    points = 2 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    arrays = make_plane_figures(Flow(identity, StandardNormal((2,))), points, losses=[1.0], seed=0)
    reach = float(arrays["plane_reach"][0])
    assert reach == pytest.approx(1.15 * float(points.abs().max()))
    density = np.exp(arrays["plane_density"].astype(float))
    assert density.sum() * (2 * reach / 40) ** 2 == pytest.approx(1.0, abs=1e-3)
    side = reach * (2 * (np.arange(40) + 0.5) / 40 - 1)
    # The map takes x to x - (1, -2): the density is highest at (1, -2), second coordinate in rows.
    row, column = np.unravel_index(density.argmax(), density.shape)
    assert abs(side[column] - 1) <= reach / 40
    assert abs(side[row] + 2) <= reach / 40
    assert arrays["plane_points"].shape == (500, 2)
    np.testing.assert_allclose(arrays["plane_samples"].mean(axis=0), [1, -2], atol=0.15)


class _Moved(Composed):
    """x - (1, -2)."""

    def __init__(self) -> None:
        super().__init__([])
        self.register_parameter("shift", torch.nn.Parameter(torch.tensor([1.0, -2.0])))

    def forward_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x - self.shift, x.new_zeros(len(x))

    def solve(self, z: Tensor):  # type: ignore[no-untyped-def]
        return super().solve(z + self.shift.detach())
