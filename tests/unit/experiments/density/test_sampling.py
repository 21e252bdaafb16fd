"""Samples, walks and neighbours of a flow, and the Frechet distance with a feature extractor from a file."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from invattn._errors import DataError
from invattn.bijections import initialize
from invattn.experiments.density.sampling import (
    draw_samples,
    frechet_distance,
    great_circles,
    interpolate,
    load_features,
    nearest_images,
)
from invattn.flows import Flow, MultiscaleIResNet, StandardNormal, token_flow
from invattn.solvers import Picard


@pytest.fixture(scope="module")
def flow() -> Flow:
    torch.manual_seed(0)
    made = MultiscaleIResNet(
        (1, 4, 4), blocks=(1, 1), hidden_channels=4, attention="gaussian", prior_channels=4
    ).double()
    initialize(made.bijection, 0.2 * torch.randn(64, 1, 4, 4, dtype=torch.float64))
    return made.eval()


def test_samples_are_inverses_of_base_draws_at_the_temperature(flow: Flow) -> None:
    state = torch.random.get_rng_state()
    warm, cold = (draw_samples(flow, 7, seed=3, temperature=value) for value in (1.0, 0.5))
    assert torch.equal(state, torch.random.get_rng_state())
    assert warm.values.shape == (7, 1, 4, 4)
    assert warm.converged.all()
    assert warm.finite.all()
    assert warm.failures == ""
    with torch.no_grad():
        z = flow.bijection(warm.values)
        torch.testing.assert_close(flow.bijection(cold.values), 0.5 * z, rtol=1e-8, atol=1e-8)
    drawn = torch.randn((7, 16), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(z, drawn, rtol=1e-8, atol=1e-8)
    assert torch.equal(draw_samples(flow, 4, seed=3).values, warm.values[:4])


def test_failed_inverses_are_reported_not_raised() -> None:
    made = token_flow(2, blocks=1, attention_layers=1, hidden_channels=(4,), solver=Picard(max_steps=1))
    initialize(made, torch.randn(64, 3, 2))
    done: list[int] = []
    found = draw_samples(Flow(made, StandardNormal((3, 2))), 120, seed=0, on_batch=done.append)
    assert done == [100, 20]
    assert not found.converged.any()
    assert "100 max_steps" in found.failures
    assert found.values.shape == (120, 3, 2)


def test_walks_begin_and_end_at_their_images(flow: Flow) -> None:
    images = 0.2 * torch.randn(4, 1, 4, 4, dtype=torch.float64)
    found = interpolate(flow, images[:2], images[2:], steps=5)
    walks = found.values.view(2, 5, 1, 4, 4)
    torch.testing.assert_close(walks[:, 0], images[:2], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(walks[:, -1], images[2:], rtol=1e-7, atol=1e-7)
    with torch.no_grad():
        ends = flow.bijection(images)
        middle = flow.bijection(walks[:, 2])
    total = ends[:2] + ends[2:]
    # The middle of an arc lies in the direction of the sum of unequal ends a and b as (a + b) / (2 cos(w / 2)).
    cosine = torch.nn.functional.cosine_similarity(ends[:2], ends[2:])
    half = (0.5 * (1 + cosine)).sqrt()
    torch.testing.assert_close(middle, total / (2 * half[:, None]), rtol=1e-6, atol=1e-6)


def test_a_great_circle_keeps_the_length_and_survives_equal_ends() -> None:
    a = torch.tensor([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    b = torch.tensor([[0.0, 3.0, 0.0], [1.0, 1.0, 1.0]])
    shares = torch.linspace(0, 1, 7)
    walk = great_circles(a, b, shares)
    assert walk.shape == (2, 7, 3)
    torch.testing.assert_close(walk.norm(dim=-1), torch.stack([torch.full((7,), 3.0), torch.full((7,), 3.0**0.5)]))
    torch.testing.assert_close(walk[0, :, 1], 3 * (shares * torch.pi / 2).sin())
    torch.testing.assert_close(walk[1], torch.ones(7, 3))


def test_nearest_images_are_those_of_a_search_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(30, 1, 3, 3, generator=generator)
    samples = torch.rand(5, 1, 3, 3, generator=generator)
    samples[2] = images[17]
    found = nearest_images(samples, images, count=3)
    flat, others = samples.double().flatten(1).numpy(), images.double().flatten(1).numpy()
    squares = ((flat[:, None] - others[None]) ** 2).mean(axis=-1)
    assert np.array_equal(found.index.numpy(), squares.argsort(axis=1)[:, :3])
    np.testing.assert_allclose(found.distance.numpy() ** 2, np.sort(squares, axis=1)[:, :3], atol=1e-15)
    assert found.distance[2, 0] == 0.0, "a copy has distance zero, to the last bit"
    assert nearest_images(samples, images[:2], count=3).index.shape == (5, 2)


class Projection(nn.Module):
    """Three fixed linear features of an image of 4 x 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 48, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() / 255).flatten(1) @ self.weight.t()


class Wrong(Projection):
    """One vector instead of one for each image."""

    def forward(self, images: Tensor) -> Tensor:
        return self.weight[:, 0]


def script(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


def grey_images(count: int, *, seed: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 4, 4), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_formula(tmp_path: Path, channels: int) -> None:
    features = load_features(script(Projection(), tmp_path / "features.ts"))
    real, drawn = grey_images(70, seed=1, channels=channels), grey_images(60, seed=2, channels=channels) // 2
    state = torch.random.get_rng_state()
    found = frechet_distance(real, drawn, features)
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.no_grad():
        a, b = (features(part.expand(-1, 3, -1, -1)).double().numpy() for part in (real, drawn))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    squares = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    assert found == pytest.approx(squares + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root), rel=1e-6)
    assert frechet_distance(real, real, features) == pytest.approx(0.0, abs=1e-6)


def test_a_file_that_holds_no_features_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.ts").write_text("no module")
    torch.save({"weights": torch.ones(2)}, tmp_path / "weights.pt")
    whole = script(Projection(), tmp_path / "whole.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[: len(whole) // 2])
    for name in ("text.ts", "weights.pt", "cut.ts", "missing.ts", "."):
        with pytest.raises(DataError, match="TorchScript") as caught:
            load_features(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_features_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    features = load_features(script(Projection(), tmp_path / "features.ts"))
    with pytest.raises(DataError, match=r"does not take images with shape \(1, 3, 5, 4\)") as caught:
        frechet_distance(grey_images(3, seed=0).repeat_interleave(2, dim=2)[:, :, :5], grey_images(3, seed=0), features)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=re.escape("returned (3,) for 1 images")):
        frechet_distance(
            grey_images(3, seed=0), grey_images(3, seed=1), load_features(script(Wrong(), tmp_path / "wrong.ts"))
        )
    with pytest.raises(DataError, match="at least two images on each side; got 1 and 3"):
        frechet_distance(grey_images(1, seed=0), grey_images(3, seed=1), features)
    with torch.no_grad():
        next(features.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        frechet_distance(grey_images(3, seed=0), grey_images(3, seed=1), features)
