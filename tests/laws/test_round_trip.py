"""A certified block inverts every input: any scale, any number of tokens, any batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invattn.bijections import Bijection

from .registry import CERTIFIED, CHAINS, SOME_CERTIFIED, AnyCase, BlockCase, random_images, random_tokens

SCALES = [1e-6, 1e4]  # the laws of bijections have the usual scale


def assert_round_trip(block: Bijection, x: Tensor) -> None:
    """Both directions to 1e-10 of the scale: the solver's 1e-12, times 1 / (1 - 0.9), leaves a factor of ten."""
    limit = 1e-10 * max(1.0, float(x.abs().max()))
    with torch.no_grad():
        z = block(x)
        assert float((block.inverse(z) - x).abs().max()) <= limit
        assert float((block(block.inverse(x)) - x).abs().max()) <= limit


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("case", [*CERTIFIED, *CHAINS], ids=str)
def test_tokens(case: AnyCase, scale: float) -> None:
    assert_round_trip(case.block(seed=1), case.inputs(scale=scale))


@pytest.mark.parametrize("case", CERTIFIED, ids=str)
def test_images(case: BlockCase) -> None:
    assert_round_trip(case.block(grid=(3, 5), seed=2), random_images())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("case", SOME_CERTIFIED, ids=str)
def test_images_of_any_scale(case: BlockCase, scale: float) -> None:
    assert_round_trip(case.block(grid=(3, 5), seed=2), scale * random_images())


@pytest.mark.parametrize("case", [*CERTIFIED, *CHAINS], ids=str)
def test_one_sample_of_one_token(case: AnyCase) -> None:
    assert_round_trip(case.block(grid=(1,), seed=3), case.inputs(1, 1))


@pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)
def test_one_sample_of_many_tokens(case: AnyCase) -> None:
    assert_round_trip(case.block(grid=(33,), seed=3), case.inputs(1, 33))


@pytest.mark.parametrize("case", [*SOME_CERTIFIED, *CHAINS], ids=str)
def test_samples_of_very_different_scales_in_one_batch(case: AnyCase) -> None:
    scales = torch.tensor([1e-8, 1.0, 1e8], dtype=torch.float64)
    x = case.inputs(3)
    x = (x.flatten(1) * scales[:, None]).view_as(x)
    with torch.no_grad():
        block = case.block(seed=4)
        error = (block.inverse(block(x)) - x).abs().flatten(1).amax(dim=1)
    assert (error <= 1e-10 * scales.clamp_min(1)).all()


@pytest.mark.parametrize("lipschitz", [0.01, 0.5, 0.99, 0.999])
@pytest.mark.parametrize("kind", ["embedded_gaussian", "pointwise"])
def test_any_coefficient(kind: str, lipschitz: float) -> None:
    block = BlockCase(kind).block(seed=5, lipschitz=lipschitz)
    x = random_tokens()
    with torch.no_grad():
        # The error may be the solver's tolerance divided by 1 - L.
        assert float((block.inverse(block(x)) - x).abs().max()) <= 1e-11 / (1 - lipschitz)


def test_an_empty_batch() -> None:
    block = BlockCase("concatenation", num_heads=2).block()
    x = random_tokens(0)
    z = block(x)
    assert z.shape == x.shape
    assert block.inverse(z).shape == x.shape
    assert block.solve(z).converged.shape == (0,)
