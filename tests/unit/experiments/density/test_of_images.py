"""The density experiment on images and on points of the plane: bits, repeats, epochs, time limits, evaluation."""

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
from torch import Tensor

from invattn._errors import DataError
from invattn.bijections import ResidualBijection
from invattn.experiments.density import measure as density_measure
from invattn.experiments.density import run as density
from invattn.experiments.density.config import DensityConfig, EvaluateOptions, density_config
from invattn.experiments.density.evaluation import evaluate_model
from invattn.experiments.density.likelihood import with_estimator
from invattn.experiments.density.run import open_data, run_density
from invattn.experiments.density.stored import open_flow
from invattn.experiments.kit.output import Arrays
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.logdet import Exact

SIDE = 4


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures have tests of their own."""

    def none(*_: Any) -> Arrays:
        return {}

    monkeypatch.setattr(density, "_figures", none)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 pictures whose pixels vary together."""
    place = tmp_path / "pictures"
    place.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        pixels = generator.integers(60, 180) + generator.integers(-20, 20, (SIDE, SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number:02d}.png")
    return place


def options(folder: Path, output: Path, **changes: Any) -> DensityConfig:
    settings: dict[str, Any] = {"data": str(folder), "image_size": SIDE, "train_size": 30, "test_size": 10}
    settings |= {"attention": "pointwise,none", "blocks": (1, 1), "hidden_channels": 4, "whitening": SIDE, "terms": 2}
    settings |= {"batch_size": 8, "warm_up": 1, "log_every": 0, "output": output, "lr": 0.003}
    return density_config(settings | ({} if "epochs" in changes else {"steps": 3}) | changes)


def test_images_are_measured_in_bits_with_references_and_a_value_for_each(folder: Path, tmp_path: Path) -> None:
    config = options(folder, tmp_path / "out", attention="none", repeats=2)
    record = run_density(config, SilentProgress())
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(stored["results"]) == 2
    first = stored["results"][0]["metrics"]
    assert "nats_per_dim" not in first
    assert stored["data"]["levels"] == 256
    assert len(stored["data"]["fingerprint"]) == 64
    assert next(iter(stored["data"]["references"])).startswith("Full-covariance Gaussian")
    for result in record.results:
        repeat = result.extra["repeat"]
        with np.load(tmp_path / "out" / "artifacts" / f"{result.variant}{'-1' if repeat else ''}.npz") as arrays:
            bits = arrays["nats"] / math.log(2)
        assert bits.shape == (10,)
        assert bits.mean() == pytest.approx(result.metrics.per_dim)
        assert bits.std(ddof=1) / math.sqrt(10) == pytest.approx(result.metrics.standard_error)
        assert result.metrics.inverse_error_max < 1e-4
    flow, _ = open_flow(tmp_path / "out" / "model" / "none-certified")
    with torch.no_grad():
        log_prob = with_estimator(flow, Exact()).log_prob(open_data(config).test())
    expected = (-log_prob / (3 * SIDE**2) + math.log(256)).mean() / math.log(2)
    none = next(result for result in record.results if result.variant == "none-certified")
    assert none.metrics.per_dim == pytest.approx(float(expected), abs=1e-5)


def test_a_stored_flow_finds_its_images_again(folder: Path, tmp_path: Path) -> None:
    record = run_density(options(folder, tmp_path / "out", attention="none"), SilentProgress())
    model = tmp_path / "out" / "model" / "none-certified"
    found = evaluate_model(EvaluateOptions(model=model, unbiased=True, stress=5), SilentProgress())
    assert found.result.metrics.per_dim == pytest.approx(record.results[0].metrics.per_dim, abs=1e-6)
    assert found.exact
    assert found.unbiased is not None
    assert found.unbiased_error is not None
    assert found.unbiased_error <= 0.005
    assert abs(found.unbiased - float(found.result.metrics.per_dim or 0)) < 5 * found.unbiased_error
    assert "photographs" in [entry.name for entry in found.inverses]
    assert max(entry.relative_max for entry in found.inverses) < 1e-4
    other = evaluate_model(EvaluateOptions(model=model, data="photos", test_size=4, stress=0), SilentProgress())
    assert (other.data.name, other.data.test_size) == ("photos", 4)
    (folder / "00.png").write_bytes((folder / "01.png").read_bytes())
    with pytest.raises(DataError, match="another fingerprint"):
        evaluate_model(EvaluateOptions(model=model), SilentProgress())


def test_more_draws_of_the_noise_tighten_the_bound(folder: Path, tmp_path: Path) -> None:
    run_density(options(folder, tmp_path / "out", attention="none"), SilentProgress())
    model = tmp_path / "out" / "model" / "none-certified"
    given = {"model": model, "stress": 0, "output": tmp_path / "evaluated"}
    one, many = (
        evaluate_model(EvaluateOptions(importance_samples=draws, **given), SilentProgress()).bound  # type: ignore[arg-type]
        for draws in (1, 16)
    )
    assert one is not None
    assert many is not None
    stored = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    assert stored["importance_bound"]["bits_per_dim"] == many.bits_per_dim
    assert many.bits_per_dim < one.bits_per_dim
    flow, _ = open_flow(model)
    images = open_data(options(folder, tmp_path)).images.test  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    draws = []
    with torch.no_grad():
        for _ in range(16):
            x = (images + torch.rand(images.shape, generator=generator)) / 256 - 0.5
            draws.append(with_estimator(flow, Exact()).log_prob(x) - 48 * math.log(256))
    expected = -(torch.stack(draws).logsumexp(dim=0) - math.log(16)).mean() / 48 / math.log(2)
    spread = torch.stack(draws).std(dim=0).mean() / 48 / math.log(2)  # of one draw; both means are of 16 and 10 images
    assert many.bits_per_dim == pytest.approx(float(expected), abs=float(spread))


def test_an_uncertified_flow_whose_radius_reaches_one_has_no_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def radii(bijection: Any, x: Tensor, **_: Any) -> dict[str, Tensor]:
        parts = [name for name, part in bijection.named_modules() if isinstance(part, ResidualBijection)]
        return {name: torch.full((len(x),), 1.5) for name in parts}

    monkeypatch.setattr(density_measure, "block_radii", radii)
    changes = {"attention": "dot_product", "recipe": "released_generative"}
    record = run_density(options(folder, tmp_path / "out", **changes), SilentProgress())
    assert record.results[0].refused is not None
    model = tmp_path / "out" / "model" / "dot_product-released_generative"
    asked = EvaluateOptions(model=model, unbiased=True, importance_samples=2, stress=0, output=tmp_path / "evaluated")
    found = evaluate_model(asked, SilentProgress())
    assert (found.unbiased, found.bound) == (None, None)
    stored = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    assert stored["metrics"]["bits_per_dim"] is None
    assert stored["metrics"]["median"] is not None
    assert "reaches 1.5" in stored["refused"]


def test_data_of_another_shape_are_refused(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"blocks": (1,), "hidden_channels": 4, "steps": 2, "batch_size": 8, "test_size": 10}
    config = density_config({"data": "two-moons", "output": tmp_path, "log_every": 0} | changes)
    record = run_density(config, SilentProgress())
    assert record.results[0].metrics.unit == "nats"
    assert 0 < record.data["references"]["True density"] < 2
    model = tmp_path / "model" / "none-certified"
    found = evaluate_model(EvaluateOptions(model=model, stress=4), SilentProgress())
    assert found.result.metrics.per_dim == pytest.approx(record.results[0].metrics.per_dim, abs=1e-6)
    other = evaluate_model(EvaluateOptions(model=model, data="checkerboard", stress=0), SilentProgress())
    assert other.data.name == "checkerboard"
    with pytest.raises(DataError, match="samples of 32 x 2"):
        evaluate_model(EvaluateOptions(model=model, data="sets"), SilentProgress())
    with pytest.raises(DataError, match="points are not dequantised"):
        evaluate_model(EvaluateOptions(model=model, importance_samples=2), SilentProgress())
    with pytest.raises(DataError, match="holds images"):
        evaluate_model(EvaluateOptions(model=model, data="digits"), SilentProgress())


def test_epochs_become_steps(folder: Path, tmp_path: Path) -> None:
    record = run_density(options(folder, tmp_path, attention="none", epochs=2), SilentProgress())
    assert record.settings["steps"] == 2 * (30 // 8)
    assert len(record.results[0].train_loss) == 6
    with pytest.raises(DataError, match="no epochs"):
        run_density(density_config({"epochs": 2, "output": tmp_path}), SilentProgress())
    with pytest.raises(ValueError, match="steps and epochs"):
        density_config({"epochs": 2, "steps": 3, "output": tmp_path})


def test_training_stops_when_its_minutes_are_over_and_goes_on(folder: Path, tmp_path: Path) -> None:
    front = {"attention": "none", "histogram": True, "knots": 4, "channel_mixing": True}
    whole = run_density(options(folder, tmp_path / "whole", **front), SilentProgress())
    limited = options(folder, tmp_path / "parts", max_minutes=1e-9, resume=True, **front)
    for steps in (1, 2):
        with pytest.raises(Interrupted, match=r"1e-09 minutes are over: .*--resume to continue"):
            run_density(limited, SilentProgress())
        state = torch.load(tmp_path / "parts" / "cells" / "none-certified-0.ckpt", weights_only=True)
        assert state["global_step"] == steps
    rest = run_density(replace(limited, max_minutes=0.0), SilentProgress())
    assert rest.results[0].train_loss == whole.results[0].train_loss
    assert rest.results[0].metrics == whole.results[0].metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 6}, "both sides must be multiples of 4, such as 8 x 8"),
        ({"attention": "uniform"}, "unknown attention of a flow 'uniform'"),
        ({"attention_positions": "0"}, "scale:block pairs"),
        ({"attention_positions": "5:0"}, "no attention position"),
        ({"kernel_sizes": ()}, "kernel_sizes: expected at least one value"),
        ({"activation": "lipswich"}, "Did you mean 'lipswish'"),
        ({"whitening_ridge": 0.0}, "whitening_ridge: expected a number above 0"),
        ({"max_minutes": -1.0}, "max_minutes: expected a number above 0"),
    ],
)
def test_options_that_do_not_fit_images_are_named(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        options(folder, tmp_path, **changes)


def test_a_batch_of_more_images_than_there_are_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a batch of 64 images"):
        run_density(options(folder, tmp_path, batch_size=64), SilentProgress())
