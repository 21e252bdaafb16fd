"""Whether the attention modules inside a network invert what they see there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invattn.bijections.residual import inverted_by
from invattn.models import CamouflageNetwork
from invattn.solvers import Adaptive

MOST_STEPS = 100
"""Of the solver, for every recipe: the N of the paper's Algorithm 1."""


@dataclass(frozen=True)
class ModuleInversion:
    """What was measured; both tensors have shape (images, modules), the finest module first.

    Attributes:
        error: |x - recovered x| / |x|, Euclidean norms over a whole map; infinite where the result is not finite.
        converged: Whether the solver reached its tolerance, bool.
    """

    error: Tensor
    converged: Tensor


@torch.no_grad()
def invert_modules(
    network: CamouflageNetwork, sample: Callable[[int], Tensor], *, count: int, on_image: Callable[[], object]
) -> ModuleInversion:
    """Send what each attention module sees through it and back.

    Args:
        network: Has attention; in eval mode.
        sample: Returns one image in 0..1, shape (3, H, W), by its number.
        count: Number of images.
        on_image: Called after each image.

    Raises:
        ValueError: If the network has no attention.
    """
    blocks = network.blocks()
    if not blocks:
        raise ValueError("the network has no attention module to invert.")
    errors, converged = [], []
    device = next(network.parameters()).device
    with inverted_by(network, Adaptive(max_steps=MOST_STEPS)):
        for number in range(count):
            inputs = network.attention_inputs(sample(number)[None].to(device))
            solutions = [block.solve(block(x)) for block, x in zip(blocks, inputs, strict=True)]
            pairs = zip(inputs, solutions, strict=True)
            errors.append(torch.stack([_relative_error(x, solution.value) for x, solution in pairs]))
            converged.append(torch.stack([solution.converged[0] for solution in solutions]))
            on_image()
    return ModuleInversion(torch.stack(errors).cpu(), torch.stack(converged).cpu())


def _relative_error(x: Tensor, recovered: Tensor) -> Tensor:
    error: Tensor = (x - recovered).double().norm() / x.double().norm()
    return error.nan_to_num(nan=torch.inf, posinf=torch.inf)
