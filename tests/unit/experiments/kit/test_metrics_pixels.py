import torch

from invattn.experiments.kit.inversion import clean_pixels


def sample() -> torch.Tensor:
    pixels = torch.tensor([[1.0, -3.0, 300.0, 254.5], [float("nan"), float("inf"), -float("inf"), 2.0]])
    return pixels.reshape(2, 1, 2, 2)


def test_uncertified_pixels_are_replaced_clipped_and_counted() -> None:
    cleaned = clean_pixels(sample(), clip=True)
    expected = torch.tensor([[1.0, 0.0, 255.0, 254.5], [0.0, 0.0, 0.0, 2.0]]).reshape(2, 1, 2, 2)
    assert torch.equal(cleaned.values, expected)
    assert cleaned.non_finite.tolist() == [0, 3]


def test_certified_pixels_are_counted_only() -> None:
    pixels = sample()
    cleaned = clean_pixels(pixels, clip=False)
    assert cleaned.values is pixels
    assert cleaned.non_finite.tolist() == [0, 3]
