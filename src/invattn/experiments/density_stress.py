"""Inputs on which the inverse of a stored flow is tried: test samples, and what no training data look like."""

from __future__ import annotations

import torch
from torch import Tensor

from invattn.data import dequantise, load_density_images
from invattn.experiments.density_data import DensityData, DequantisedData
from invattn.training.seeds import derive_seed

FAR = (10.0, 1000.0)
"""Factors by which test samples are moved away from 0."""

_PHOTOS = "photos"


def stress_inputs(data: DensityData, *, count: int, seed: int) -> dict[str, Tensor]:
    """Return name -> inputs with shape (n, *event), n at most ``count``.

    Args:
        data: What the flow is evaluated on.
        count: Inputs of each kind.
        seed: Decides what is random.

    Raises:
        DataError: If the photographs that serve as other images cannot be read.
    """
    test = data.test()[:count]
    inputs = {f"test samples of {data.name}": test}
    generator = torch.Generator().manual_seed(derive_seed(seed, "stress"))
    uniform = torch.rand(test.shape, generator=generator)
    if isinstance(data, DequantisedData):
        inputs |= _other_images(data, count=count, seed=seed)
        inputs["uniform noise"] = uniform - 0.5
        inputs["one grey level for all pixels"] = (uniform.flatten(1)[:, :1] - 0.5).reshape(-1, 1, 1, 1).expand_as(test)
    else:
        reach = float(test.abs().max())
        inputs["uniform noise, as wide as the test samples"] = reach * (2 * uniform - 1)
        inputs["all numbers 0"] = torch.zeros_like(test)
    return inputs | {f"test samples, {factor:g} times as far from 0": factor * test for factor in FAR}


def _other_images(data: DequantisedData, *, count: int, seed: int) -> dict[str, Tensor]:
    """Return images of another kind: photographs, or the negatives of the test images where those are photographs."""
    index = torch.arange(min(count, data.test_size))
    if data.name == _PHOTOS:
        return {"negatives of the test images": -data.test()[: len(index)]}
    found = load_density_images(
        _PHOTOS, data_root=None, train_size=1, test_size=len(index), image_size=data.event_shape[-1], seed=seed
    )
    images = found.test
    if data.event_shape[0] == 1:
        images = images.float().mean(dim=1, keepdim=True).to(torch.uint8)
    images = (images.long() * data.levels // 256).to(torch.uint8)
    noise_seed = derive_seed(seed, "stress noise")
    return {"photographs": dequantise(images, seed=noise_seed, step=0, index=index, levels=data.levels)}
