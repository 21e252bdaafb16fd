"""What other models need for the same images, against independent computations."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import MultivariateNormal

from invattn.experiments.density.data import DequantisedData, open_images
from invattn.experiments.density.images import load_density_images
from invattn.experiments.density.references import coded_bits, full_covariance, image_references
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData


def correlated(count: int, seed: int) -> torch.Tensor:
    """Images of 1 x 2 x 3 whose pixels vary together."""
    generator = torch.Generator().manual_seed(seed)
    common = 20 * torch.randn(count, 1, 1, 1, generator=generator)
    return (128 + common + 3 * torch.randn(count, 1, 2, 3, generator=generator)).round().to(torch.uint8)


def test_the_gaussian_is_that_of_the_sample_moments() -> None:
    train, test = correlated(500, 0), correlated(100, 1)
    spread = test.double() + torch.rand(test.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ridge, value = full_covariance(train, spread, flips=True)
    rows = torch.cat([train, train.flip(-1)]).flatten(1).double()
    covariance = torch.cov(rows.mT, correction=0) + (ridge + 1 / 12) * torch.eye(6, dtype=torch.float64)
    log_prob = MultivariateNormal(rows.mean(dim=0) + 0.5, covariance).log_prob(spread.flatten(1))
    assert value == pytest.approx(-float(log_prob.mean()) / 6 / math.log(2), rel=1e-9)
    assert ridge == 0  # with 500 images of 6 pixels nothing has to be added


def test_few_images_of_many_pixels_take_a_ridge() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(100, 110, (80, 1, 8, 8), generator=generator).to(torch.uint8)
    assert full_covariance(train, train.double() + 0.5, flips=False)[0] > 0


def test_coded_bits_are_those_of_lossless_files() -> None:
    images = torch.randint(0, 4, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for form in ("PNG", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(file, format=form, lossless=True)
        back = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(back, images[0])
        assert 2 < coded_bits(images, form=form) < 8  # uniform on 4 levels: 2 bits, and headers


def test_small_images_are_not_coded_and_large_ones_get_no_covariance() -> None:
    small = ImageData("a", correlated(50, 0), correlated(10, 1), "f", (), "2x3")
    names = list(image_references(small, levels=256, flips=False, test=small.test.double()))
    assert len(names) == 1
    assert names[0].startswith("Full-covariance Gaussian")
    large = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    found = image_references(
        ImageData("b", large, large, "f", (), "64x64"), levels=256, flips=False, test=large.double()
    )
    assert list(found) == ["WebP, lossless (files)", "PNG (files)"]


def test_the_digits_have_the_gaussian_of_the_design() -> None:
    data = open_images(
        ImageRequest("digits", data_root=None, image_size=8, train_size=1500, test_size=297, seed=0), flips=False
    )
    value = next(iter(data.references().values()))
    assert value == pytest.approx(2.949, abs=0.02)  # another draw of the noise moves it by less than 0.01


@pytest.mark.slow
def test_faces_have_the_gaussian_of_the_design(real_data: Path) -> None:
    images = load_density_images(
        ImageRequest("celeba", data_root=real_data, train_size=7000, test_size=500, image_size=16, seed=0)
    )
    data = DequantisedData(images, levels=256, flips=True, seed=0)
    assert full_covariance(images.train, 256 * (data.test().double() + 0.5), flips=True)[1] == pytest.approx(
        5.038, abs=0.01
    )
