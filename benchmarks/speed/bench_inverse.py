"""Inverting a trained certified block beside 50 plain iterations with the formula over the whole batch.

Blocks are trained by the paper's protocol: 1,000 images, 100 epochs; on CIFAR-10 where INVATTN_TEST_DATA names a folder
that holds it, else on the photographs of scikit-image. About three minutes.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from rich.console import Console
from torch import Tensor
from turns import Turns

from invattn.bijections import Block
from invattn.bijections.residual import inverted_by
from invattn.experiments.kit.data.dequantise import DequantisedImages
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import load_reconstruction_data
from invattn.experiments.kit.terminal import progress_for
from invattn.experiments.kit.training.loader import derive_seed
from invattn.experiments.reconstruction.run import ReconstructionConfig, run
from invattn.functional import Response, response_weights, squeeze
from invattn.hub import load_model
from invattn.solvers import Adaptive

KINDS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
IMAGES, PLAIN_STEPS = 64, 50


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ReconstructionConfig:
    """Train every kind once."""
    root = os.environ.get("INVATTN_TEST_DATA")
    found = root is not None and (Path(root) / "cifar10").exists()
    config = ReconstructionConfig(
        output=tmp_path_factory.mktemp("trained") / "run",
        recipe="certified",
        data="cifar10" if found else "photos",
        data_root=Path(root) if found and root else None,
        test_size=IMAGES,
        repeats=1,
    )
    run(config, progress_for(Console(stderr=True)))
    return config


def block_and_images(config: ReconstructionConfig, kind: str) -> tuple[Block, Tensor]:
    """Return a trained block and what the test images look like to it, with shape (64, 12, 16, 16)."""
    data = load_reconstruction_data(
        ImageRequest(
            config.data,
            data_root=config.data_root,
            train_size=config.train_size,
            test_size=config.test_size,
            image_size=32,
            seed=config.seed,
        )
    )
    images = DequantisedImages(data.test, seed=derive_seed(config.seed, "test noise"))
    loaded = load_model(config.output / "model" / f"{kind}-certified")
    x = squeeze(images(torch.arange(IMAGES)), loaded.config.squeeze)
    return loaded.config.block_of(loaded.model).eval(), x


def formula(
    query: Tensor, key: Tensor, value: Tensor, *, response: Response, causal: bool = False, **more: Tensor
) -> Tensor:
    """Return softmax(scores) v with the whole map, whatever the table says."""
    return response_weights(query, key, response=response, **more) @ value


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def bench_inverse(kind: str, row: str, turns: Turns, request: pytest.FixtureRequest) -> None:
    """64 images of 12 x 16 x 16, default solver. Both compute weights and norms once, not at every step."""
    config = request.getfixturevalue("trained")
    block, x = block_and_images(config, kind)
    z = block(x)
    tokens = block.to_branch(z)

    def plain() -> Tensor:
        with patch("invattn.branches.attention.certified.attend", formula):
            apply, found = block.branch.at_present_weights(), tokens
            for _ in range(PLAIN_STEPS):
                found = tokens - apply(found)
        return found

    with inverted_by(block, Adaptive()):  # the experiment's own solver has a finer tolerance
        solution = block.solve(z)
        facts = {
            "evaluations": float(solution.evaluations.double().mean()),
            "converged": bool(solution.converged.all()),
            "error": float((solution.value - x).abs().max()),
            "data": config.data,
        }
        variants = {"solve": lambda: block.solve(z), "50 plain steps": plain}
        turns.measure(row, variants, rounds=10, wall_rounds=5, **facts)
