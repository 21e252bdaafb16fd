import time

import pytest
import torch

from invattn.experiments.kit.data.dequantise import dequantise, to_pixels


def _images(count: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_stays_in_the_half_open_range_and_returns_the_grey_levels_exactly() -> None:
    images = torch.cat([_images(62), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)])
    images = torch.cat([images, torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)])
    values = dequantise(images, seed=1, step=2, index=torch.arange(64))
    assert values.dtype == torch.float32
    assert values.min() >= -0.5
    assert values.max() < 0.5
    assert torch.equal(to_pixels(values).floor().to(torch.uint8), images)


def test_largest_noise_on_white_stays_below_one_half() -> None:
    # 1.5 million values: noise of 65535/65536 is expected 23 times
    images = torch.full((500, 3, 32, 32), 255, dtype=torch.uint8)
    values = dequantise(images, seed=0, step=0, index=torch.arange(500))
    assert values.max() == 0.5 - 2.0**-24


def test_noise_is_uniform_and_uncorrelated() -> None:
    images = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    noise = to_pixels(dequantise(images, seed=3, step=0, index=torch.arange(400))).double().flatten(1)
    count = noise.numel()  # 1.2 million: standard error of the mean 2.6e-4
    assert abs(noise.mean() - 0.5) < 4 * (1 / 12 / count) ** 0.5
    assert abs(noise.var() * 12 - 1) < 4 * (0.8 / count) ** 0.5
    counts = torch.histc(noise, bins=64, min=0, max=1)
    chi_square = ((counts - count / 64) ** 2 / (count / 64)).sum()
    assert chi_square < 63 + 4 * (2 * 63) ** 0.5
    centred = noise - 0.5
    for other in (centred.roll(1, 0), centred.roll(1, 1), centred.roll(32, 1), centred.roll(1024, 1)):
        assert abs((centred * other).mean() * 12) < 4 / count**0.5


def test_depends_on_seed_step_and_index_only() -> None:
    images = _images(8)
    index = torch.tensor([5, 0, 7, 900, 3, 2, 1, 4])
    values = dequantise(images, seed=11, step=4, index=index)
    order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    assert torch.equal(dequantise(images[order], seed=11, step=4, index=index[order]), values[order])
    assert torch.equal(dequantise(images[2:3], seed=11, step=4, index=index[2:3]), values[2:3])
    torch.manual_seed(1)
    assert torch.equal(dequantise(images, seed=11, step=4, index=index), values)
    for changed in (
        dequantise(images, seed=12, step=4, index=index),
        dequantise(images, seed=11, step=5, index=index),
        dequantise(images, seed=11, step=4, index=index + 1),
        dequantise(images, seed=4, step=11, index=index),
    ):
        assert (changed != values).float().mean() > 0.999


def test_values_are_the_same_on_every_machine() -> None:
    images = torch.zeros(1, 1, 1, 4, dtype=torch.uint8)
    noise = to_pixels(dequantise(images, seed=1, step=2, index=torch.tensor([3]))).flatten() * 65536
    assert noise.tolist() == [float(_reference(1, 2, 3, position)) for position in range(1, 5)]


@pytest.mark.parametrize("seed", [-1, 2**63, -(2**63), 2**64 + 5])
def test_any_integer_is_a_seed(seed: int) -> None:
    images = _images(2)
    values = dequantise(images, seed=seed, step=0, index=torch.arange(2))
    assert not torch.equal(values, dequantise(images, seed=0, step=0, index=torch.arange(2)))


def test_leaves_its_input_alone_and_takes_an_empty_batch() -> None:
    images = _images(2)
    before = images.clone()
    dequantise(images, seed=0, step=0, index=torch.arange(2))
    assert torch.equal(images, before)
    empty = dequantise(images[:0], seed=0, step=0, index=torch.arange(0))
    assert empty.shape == (0, 3, 32, 32)


def test_refuses_what_is_no_numbered_8_bit_batch() -> None:
    images = _images(2)
    with pytest.raises(ValueError, match="images must be uint8"):
        dequantise(images.float(), seed=0, step=0, index=torch.arange(2))
    with pytest.raises(ValueError, match=r"index must be int64 with shape \(2,\)"):
        dequantise(images, seed=0, step=0, index=torch.arange(3))
    with pytest.raises(ValueError, match="index must be int64"):
        dequantise(images, seed=0, step=0, index=torch.zeros(2))


def test_a_batch_of_64_takes_milliseconds() -> None:
    images, index = _images(64), torch.arange(64)
    seconds = []
    for step in range(20):
        start = time.perf_counter()
        dequantise(images, seed=0, step=step, index=index)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.010


def _reference(seed: int, step: int, index: int, position: int) -> int:
    """Compute one 16-bit noise value with Python's own integers."""
    modulus, increment = 2**64, 0x9E3779B97F4A7C15

    def mix(state: int) -> int:
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % modulus
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % modulus
        return state ^ (state >> 31)

    key = seed
    for word in (step, index):
        key = mix((key + increment) % modulus) ^ word
    key = mix((key + increment) % modulus)
    return mix((key + position * increment) % modulus) >> 48
