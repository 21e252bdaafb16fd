"""The Frechet distance with a feature extractor from a file."""

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
from invattn.experiments.density.sampling import frechet_distance, load_features


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


def images(count: int, *, seed: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 4, 4), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_formula(tmp_path: Path, channels: int) -> None:
    features = load_features(script(Projection(), tmp_path / "features.ts"))
    real, drawn = images(70, seed=1, channels=channels), images(60, seed=2, channels=channels) // 2
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
        frechet_distance(images(3, seed=0).repeat_interleave(2, dim=2)[:, :, :5], images(3, seed=0), features)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=re.escape("returned (3,) for 1 images")):
        frechet_distance(images(3, seed=0), images(3, seed=1), load_features(script(Wrong(), tmp_path / "wrong.ts")))
    with pytest.raises(DataError, match="at least two images on each side; got 1 and 3"):
        frechet_distance(images(1, seed=0), images(3, seed=1), features)
    with torch.no_grad():
        next(features.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        frechet_distance(images(3, seed=0), images(3, seed=1), features)
