import numpy as np
import pytest
import torch
from PIL import Image

from invattn.experiments.kit.data.pixels import centre_square, crop_even, resize


def _pixels(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def test_centre_square() -> None:
    pixels = _pixels(109, 89)
    assert torch.equal(centre_square(pixels), pixels[:, 10:99, :])
    assert torch.equal(centre_square(pixels.mT), pixels.mT[:, :, 10:99])
    assert torch.equal(centre_square(pixels[:, :89]), pixels[:, :89])


@pytest.mark.parametrize(("size", "expected"), [((5, 3), (4, 2)), ((4, 6), (4, 6)), ((3, 4), (2, 4))])
def test_crop_even(size: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels = _pixels(*size)
    assert torch.equal(crop_even(pixels), pixels[:, : expected[0], : expected[1]])


def test_resize_leaves_the_right_size_alone() -> None:
    pixels = _pixels(32, 32)
    assert resize(pixels, height=32, width=32) is pixels


@pytest.mark.parametrize("size", [(89, 89), (256, 256), (33, 33), (16, 16)])
def test_resize_agrees_with_pillows_antialiased_bilinear_filter(size: tuple[int, int]) -> None:
    pixels = _pixels(*size)
    resized = resize(pixels, height=32, width=32)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((32, 32), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert resized.dtype == torch.uint8
    # Pillow works in fixed point and rounds after each axis: at most one grey level from the exact filter
    assert (resized.int() - expected.int()).abs().max() <= 1


def test_resize_is_antialiased() -> None:
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    resized = resize(stripes, height=16, width=16)
    assert (resized.float() - 127.5).abs().max() < 10
