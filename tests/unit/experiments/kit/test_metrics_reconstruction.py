import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from invattn.experiments.kit.inversion import V_SCORE_THRESHOLD, mse_per_image, ssim_per_image, v_score


def images(*, height: int = 24, width: int = 18) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    original = 255 * torch.rand(3, 3, height, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(original.shape, generator=generator, dtype=torch.float64)
    return original, original + torch.tensor([0.0, 3.0, 40.0], dtype=torch.float64)[:, None, None, None] * noise


def test_mse_is_the_mean_of_squares_of_each_image() -> None:
    original, changed = images()
    expected = [float(((changed[i] - original[i]) ** 2).mean()) for i in range(3)]
    assert mse_per_image(changed, original).tolist() == pytest.approx(expected, rel=1e-12)
    assert mse_per_image(original, original).tolist() == [0.0, 0.0, 0.0]


def test_mse_is_computed_in_float64() -> None:
    original = torch.full((1, 3, 4, 4), 200.0)
    changed = original + 2.0**-16
    assert float(mse_per_image(changed, original)) == 2.0**-32
    assert mse_per_image(changed, original).dtype == torch.float64


def test_ssim_agrees_with_an_independent_library() -> None:
    original, changed = images()
    found = ssim_per_image(changed, original)
    assert found.dtype == torch.float64
    for number in range(3):
        _, full = structural_similarity(
            original[number].numpy(),
            changed[number].numpy(),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255.0,
            full=True,
        )
        # The two reflect the border differently (with and without the edge pixel), so the means differ slightly.
        assert float(found[number]) == pytest.approx(float(np.mean(full)), abs=5e-3)
    assert float(found[0]) == pytest.approx(1.0, abs=1e-12)
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("count", [1, 4, 12])
def test_ssim_of_a_batch_is_that_of_each_image(count: int) -> None:
    original = 255 * torch.rand(count, 3, 11, 16, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    changed = (original * 0.9 + 3).flip(0)
    whole = ssim_per_image(changed, original)
    assert whole.shape == (count,)
    single = [float(ssim_per_image(changed[i : i + 1], original[i : i + 1])) for i in range(count)]
    assert whole.tolist() == pytest.approx(single, rel=1e-12)


def test_ssim_of_tiny_images_is_not_a_number() -> None:
    original, changed = images(height=10)
    assert ssim_per_image(changed, original).isnan().all()


def test_v_score_is_the_share_below_the_threshold() -> None:
    errors = torch.tensor([0.0, V_SCORE_THRESHOLD, 9.999, 50.0, math.nan, math.inf, 1e-9, 3.0])
    assert v_score(errors) == 4 / 8
    assert v_score(errors, threshold=60.0) == 6 / 8
    assert v_score(torch.tensor([math.nan])) == 0.0


def test_bad_input_is_refused() -> None:
    original, _ = images()
    for metric in (mse_per_image, ssim_per_image):
        with pytest.raises(ValueError, match="same shape"):
            metric(original, original[:1])
        with pytest.raises(ValueError, match="same shape"):
            metric(original[0], original[0])
    with pytest.raises(ValueError, match="at least one image"):
        v_score(torch.empty(0))
