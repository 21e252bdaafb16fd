"""Inverting a trained certified block beside 50 plain iterations with the formula over the whole batch."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from rich.console import Console
from torch import Tensor
from turns import Turns

from invattn.bijections import Bijection, to_tokens
from invattn.checkpoints import load_model
from invattn.cli.progress import progress_for
from invattn.data import load_reconstruction_data
from invattn.experiments.cell_runner import Workload
from invattn.experiments.reconstruction import ReconstructionConfig, run
from invattn.functional import Response, response_weights, squeeze

KINDS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
IMAGES, PLAIN_STEPS = 64, 50
EPOCHS, TRAIN_SIZE = 40, 256


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ReconstructionConfig:
    """Train every kind once, as ``make demo`` does."""
    config = ReconstructionConfig(
        output=tmp_path_factory.mktemp("trained") / "run",
        recipe="certified",
        epochs=EPOCHS,
        train_size=TRAIN_SIZE,
        test_size=IMAGES,
        repeats=1,
    )
    run(config, progress_for(Console(stderr=True)))
    return config


def block_and_images(config: ReconstructionConfig, kind: str) -> tuple[Bijection, Tensor]:
    """Return a trained block and what the test images look like to it, with shape (64, 12, 16, 16)."""
    data = load_reconstruction_data(
        config.data,
        data_root=None,
        train_size=config.train_size,
        test_size=config.test_size,
        image_size=32,
        seed=config.seed,
    )
    images = Workload(config=config, train=data.train, test=data.test, batch_size=1).test_images()
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
    """64 images of 12 x 16 x 16, default tolerance. Both compute weights and norms once, not at every step."""
    block, x = block_and_images(request.getfixturevalue("trained"), kind)
    z = block(x)
    tokens = to_tokens(z)

    def plain() -> Tensor:
        with patch("invattn.branches.attention.certified.attend", formula):
            apply, found = block.branch.at_present_weights(), tokens
            for _ in range(PLAIN_STEPS):
                found = tokens - apply(found)
        return found

    solution = block.solve(z)
    error = float((solution.value - x).abs().max())
    facts = {"evaluations": float(solution.evaluations.double().mean()), "converged": bool(solution.converged.all())}
    variants = {"solve": lambda: block.solve(z), "50 plain steps": plain}
    turns.measure(row, variants, rounds=5, wall_rounds=3, error=error, **facts)
