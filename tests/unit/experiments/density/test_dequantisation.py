"""Learned dequantisation in the density experiment: what is trained, stored, resumed and reported."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from invattn.bijections import Composed
from invattn.experiments.density import measure as density_measure
from invattn.experiments.density import run as density
from invattn.experiments.density.config import DensityConfig, EvaluateOptions, density_config
from invattn.experiments.density.data import DequantisedData
from invattn.experiments.density.evaluation import evaluate_model
from invattn.experiments.density.likelihood import with_estimator
from invattn.experiments.density.measure import inputs_of_test
from invattn.experiments.density.run import open_data, run_density
from invattn.experiments.kit.output import Arrays
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.hub import ImageFlowConfig, load_flow
from invattn.hub.flow_config import whole_valued
from invattn.logdet import Exact, PowerSeries, Shard

SIDE, TEST = 4, 10
DIMENSIONS = 3 * SIDE**2
MODEL = Path("model", "none-certified")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures have tests of their own."""

    def none(*_: Any) -> Arrays:
        return {}

    monkeypatch.setattr(density, "_figures", none)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures whose pixels vary together."""
    place = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(40):
        pixels = generator.integers(60, 180) + generator.integers(-20, 20, (SIDE, SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number:02d}.png")
    return place


def options(folder: Path, output: Path, **changes: Any) -> DensityConfig:
    settings: dict[str, Any] = {"data": str(folder), "image_size": SIDE, "train_size": 30, "test_size": TEST}
    settings |= {"attention": "none", "blocks": (1, 1), "hidden_channels": 4, "whitening": SIDE, "terms": 2, "steps": 3}
    settings |= {"batch_size": 8, "warm_up": 1, "log_every": 0, "output": output, "lr": 0.003}
    return density_config(settings | {"dequantisation": "variational"} | changes)


def test_flow_and_noise_are_trained_stored_and_measured_by_the_evidence_lower_bound(
    folder: Path, tmp_path: Path
) -> None:
    config = options(folder, tmp_path)
    record = run_density(config, SilentProgress())
    metrics = record.results[0].metrics
    loaded = load_flow(tmp_path / MODEL)
    assert isinstance(loaded.config, ImageFlowConfig)
    assert isinstance(loaded.model, Composed)
    assert (loaded.config.dequantisation, loaded.config.grey_levels) == ("variational", 256)
    weights = loaded.model.state_dict()
    assert float(weights["dequantisation.head.weight"].abs().max()) > 0, "it starts at zero: it was not trained"
    # The mean over many draws, with the flow as the core has it, against one draw for each image.
    flow = with_estimator(loaded.config.distribution(loaded.model), Exact())
    assert isinstance(flow.bijection, Composed)
    model = loaded.config.dequantised(flow.bijection)
    data = open_data(config)
    assert isinstance(data, DequantisedData)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        draws = torch.stack([model.elbo(data.images.test, generator=generator) for _ in range(60)])
    bits = -draws.double() / DIMENSIONS / math.log(2)
    error = float(bits.std(dim=0).square().mean().sqrt()) / math.sqrt(TEST)
    assert abs(float(bits.mean()) - float(metrics.per_dim or 0)) < 5 * error
    with np.load(tmp_path / "artifacts" / "none-certified.npz") as arrays:
        assert arrays["nats"].mean() / math.log(2) == pytest.approx(metrics.per_dim)
    assert all(5 < loss < 9 for loss in record.results[0].train_loss), "bits per dimension of grey levels"
    assert any("evidence lower bound" in note for note in record.data["notes"])
    assert record.settings["dequantisation"] == "variational"
    assert "--dequantisation variational" in record.command
    uniform = options(folder, tmp_path, dequantisation="uniform")
    assert not any("lower bound" in note for note in open_data(uniform).notes())


def test_a_stopped_training_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    whole = run_density(options(folder, tmp_path / "whole"), SilentProgress())
    limited = options(folder, tmp_path / "parts", max_minutes=1e-9, resume=True)
    for _ in range(2):
        torch.rand(3)  # the state of the default generator must not matter
        with pytest.raises(Interrupted):
            run_density(limited, SilentProgress())
    state = torch.load(tmp_path / "parts" / "cells" / "none-certified-0.ckpt", weights_only=True)["state_dict"]
    for name in ("flow.dequantisation.head.weight", "average.dequantisation.head.weight"):
        assert float(state[name].abs().max()) > 0
    assert not torch.equal(state["flow.dequantisation.head.weight"], state["average.dequantisation.head.weight"])
    rest = run_density(replace(limited, max_minutes=0.0), SilentProgress())
    assert rest.results[0].train_loss == whole.results[0].train_loss
    assert rest.results[0].metrics == whole.results[0].metrics
    left, right = (load_file(tmp_path / name / MODEL / "model.safetensors") for name in ("whole", "parts"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_more_draws_of_learned_noise_tighten_the_bound_and_probes_are_accounted_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_density(options(folder, tmp_path), SilentProgress())

    def bound(draws: int) -> density_measure.ImportanceBound:
        asked = EvaluateOptions(model=tmp_path / MODEL, importance_samples=draws, stress=0, output=tmp_path / "out")
        evaluation = evaluate_model(asked, SilentProgress())
        assert evaluation.data.learned
        assert evaluation.result.metrics.per_dim == pytest.approx(record.results[0].metrics.per_dim, abs=1e-6)
        assert evaluation.bound is not None
        assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["importance_bound"] == vars(
            evaluation.bound
        )
        return evaluation.bound

    one, many = bound(1), bound(16)
    assert abs(one.bits_per_dim - float(record.results[0].metrics.per_dim or 0)) < 5 * one.standard_error
    assert many.bits_per_dim < one.bits_per_dim
    assert (one.probe_bias, many.probe_bias) == (0.0, 0.0)
    monkeypatch.setattr(density_measure, "EXACT_DIMENSIONS", 0)
    assert bound(1).probe_bias == 0.0
    probed = bound(16)
    assert 0 < probed.probe_bias <= density_measure.TARGET_BIAS
    # Both see the same images; other noise moves the bound of 16 draws less than one draw, and its images are few.
    assert abs(probed.bits_per_dim - many.bits_per_dim) < abs(one.bits_per_dim - many.bits_per_dim)


def test_test_samples_are_the_same_draws_and_grey_levels_at_every_call(folder: Path, tmp_path: Path) -> None:
    config = options(folder, tmp_path)
    data, made = open_data(config), config.model_config("none", "certified")
    assert isinstance(data, DequantisedData)
    flow = made.distribution(made.build())
    first, again = inputs_of_test(flow, data), inputs_of_test(flow, data)
    assert torch.equal(first.x, again.x)
    assert torch.equal((256 * (first.x.double() + 0.5)).floor(), data.images.test.double())
    uniform = inputs_of_test(flow, replace(data, learned=False))
    assert torch.equal(uniform.x, data.test())
    assert not bool(uniform.cost.any())
    assert float((first.cost - DIMENSIONS * math.log(256)).abs().min()) > 0


def test_two_parts_of_a_batch_have_the_noise_and_probes_of_the_whole(folder: Path, tmp_path: Path) -> None:
    made = options(folder, tmp_path).model_config("none", "certified")
    values = torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    found = []
    for shard in (Shard(), Shard(0, 2), Shard(1, 2)):
        torch.manual_seed(1)
        chain = made.build_with(PowerSeries(terms=3, shard=shard))
        model = whole_valued(made.distribution(chain), levels=256).eval()
        torch.manual_seed(2)
        with torch.no_grad():
            found.append(model(values if shard.parts == 1 else values.chunk(2)[shard.part]))
    whole, *parts = found
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("data", ["sets", "two-moons"])
def test_points_have_no_dequantisation(tmp_path: Path, data: str) -> None:
    with pytest.raises(ValueError, match=f"the points of {data} are no whole values. Leave --dequantisation out"):
        density_config({"data": data, "dequantisation": "variational", "output": tmp_path})
    with pytest.raises(ValueError, match="Did you mean 'variational'"):
        density_config({"data": "digits", "dequantisation": "variatonal", "output": tmp_path})
