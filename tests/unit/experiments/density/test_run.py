"""The density experiment from options to record: cells, resuming, refusals, figures."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from invattn._errors import DataError
from invattn.bijections import initialize
from invattn.experiments.density import data as density_data
from invattn.experiments.density import figures as density_figures
from invattn.experiments.density import measure as density_measure
from invattn.experiments.density.command import sample_points
from invattn.experiments.density.config import EvaluateOptions, SampleOptions
from invattn.experiments.density.evaluation import evaluate_model
from invattn.experiments.density.figures import conditional_densities
from invattn.experiments.density.record import DensityRecord
from invattn.experiments.density.run import DensityConfig, run_density
from invattn.experiments.density.sampling import sample_sets
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.flows import Flow, StandardNormal, token_flow
from invattn.hub import load_flow


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_figures, "SIDE", 5)
    monkeypatch.setattr(density_data, "FITTED", 32)


def options(output: Path, **changes: Any) -> DensityConfig:
    settings: dict[str, Any] = {"attention": "gaussian", "blocks": (1,), "attention_layers": 1, "hidden_channels": 4}
    settings |= {"steps": 4, "batch_size": 4, "warm_up": 1, "test_size": 12, "terms": 2, "averaging": 0.5}
    return DensityConfig(**{**settings, **changes}, output=output)


class Progress(SilentProgress):
    def __init__(self, stop: int = -1) -> None:
        self.messages: list[str] = []
        self.done, self.stop = 0, stop

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.done += steps
        if self.done == self.stop:
            os.kill(os.getpid(), signal.SIGINT)

    def message(self, text: str) -> None:
        self.messages.append(text)


def plain(record: DensityRecord) -> list[dict[str, Any]]:
    """The results without times."""
    found = [result.to_json() for result in record.results]
    for entry in found:
        del entry["cpu_seconds"], entry["train_seconds"]
    return found


def test_a_run_writes_results_models_and_figures_and_skips_what_is_finished(tmp_path: Path) -> None:
    config = options(tmp_path, attention="gaussian,none", repeats=2)
    record = run_density(config, Progress())
    assert [(entry.variant, entry.seed) for entry in record.results] == [
        ("gaussian-certified", 0),
        ("gaussian-certified", 1),
        ("none-certified", 0),
        ("none-certified", 1),
    ]
    for entry in record.results:
        assert entry.certificate is not None
        assert entry.certificate["bound"] <= 0.99
        assert entry.metrics.per_dim is not None
        assert entry.metrics.estimator_error == 0
        assert 0 < entry.metrics.inverse_error_max < 1e-3
        assert 0 < entry.metrics.spectral_radius_max < 1
        assert len(entry.train_loss) == 4
        assert entry.cpu_seconds > 0
    assert record.results[0].metrics != record.results[1].metrics
    assert DensityRecord.from_json(json.loads((tmp_path / "results.json").read_text())).command == config.command()
    with np.load(tmp_path / "artifacts" / "gaussian-certified.npz") as arrays:
        assert arrays["sampled_sets"].shape == (6, 32, 2)
        assert arrays["conditional"].shape == (4, 5, 5)
    again = Progress()
    assert plain(run_density(config, again)) == plain(record)
    assert again.messages == [f"{name}: finished before, skipped" for name in _names()]
    with pytest.raises(DataError, match="other options"):
        run_density(replace(config, lr=0.1), Progress())
    assert not list((tmp_path / "cells").glob("*.ckpt"))


def _names() -> list[str]:
    return [f"{kind}-certified-{repeat}" for kind in ("gaussian", "none") for repeat in (0, 1)]


def test_an_interrupted_run_resumes_to_the_same_results(tmp_path: Path) -> None:
    whole = run_density(options(tmp_path / "whole"), Progress())
    with pytest.raises(Interrupted, match="--resume"):
        run_density(options(tmp_path / "half"), Progress(stop=3))
    resumed = run_density(options(tmp_path / "half", resume=True), Progress())
    assert plain(resumed) == plain(whole)
    left, right = (load_flow(tmp_path / name / "model" / "gaussian-certified").model for name in ("whole", "half"))
    assert all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_a_stored_flow_is_evaluated_as_in_its_table_and_without_bias(tmp_path: Path) -> None:
    record = run_density(options(tmp_path), Progress())
    folder = tmp_path / "model" / "gaussian-certified"
    found = evaluate_model(EvaluateOptions(model=folder, unbiased=True, stress=6, output=tmp_path / "ev"), Progress())
    metrics, trained = found.result.metrics, record.results[0].metrics
    assert metrics.per_dim == pytest.approx(trained.per_dim, abs=1e-6)
    assert found.unbiased_error is not None
    assert found.unbiased_error <= 0.005
    assert metrics.per_dim is not None
    assert abs(found.unbiased - metrics.per_dim) < 5 * found.unbiased_error  # type: ignore[operator]
    assert [entry.converged for entry in found.inverses] == 5 * [6]
    assert max(entry.relative_max for entry in found.inverses) < 1e-4
    stored = json.loads((tmp_path / "ev" / "evaluation.json").read_text())
    assert stored["metrics"]["nats_per_dim"] == metrics.per_dim
    assert len(stored["inverses"]) == 5
    other = evaluate_model(EvaluateOptions(model=folder, test_size=8, seed=1, stress=0), Progress())
    assert (other.unbiased, other.inverses, other.data.test_size) == (None, (), 8)
    assert other.result.metrics.per_dim != metrics.per_dim


def test_samples_are_the_inverse_of_base_draws(tmp_path: Path) -> None:
    run_density(options(tmp_path), Progress())
    folder = tmp_path / "model" / "gaussian-certified"
    asked = SampleOptions(model=folder, count=3, temperature=(1.0,), seed=5, output=tmp_path)
    samples = sample_points(asked)
    assert samples.shape == (3, 32, 2)
    assert torch.equal(samples, sample_points(asked))
    cold = sample_points(replace(asked, temperature=(0.5,)))
    model = load_flow(folder).model
    torch.testing.assert_close(model(cold), 0.5 * model(samples), rtol=1e-3, atol=1e-4)
    with pytest.raises(DataError, match="temperature must be above 0"):
        replace(asked, temperature=(0.0,))


def test_an_uncertified_flow_whose_radius_reaches_one_has_no_likelihood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def radii(bijection: Any, x: Tensor, **_: Any) -> dict[str, Tensor]:
        return {"bijections.1": torch.tensor([1.3])}

    monkeypatch.setattr(density_measure, "block_radii", radii)
    progress = Progress()
    record = run_density(options(tmp_path, recipe="released"), progress)
    result = record.results[0]
    assert result.variant == "gaussian-released"
    assert result.metrics.per_dim is None
    assert result.metrics.standard_error is None
    assert np.isfinite(result.metrics.median)
    assert result.refused is not None
    assert "reaches 1.3" in result.refused
    assert "no likelihood" in progress.messages[0]
    stored = json.loads((tmp_path / "results.json").read_text())["results"][0]
    assert stored["metrics"]["nats_per_dim"] is None


def test_a_conditional_density_is_that_of_the_joint_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_figures, "ARRIVED", (1, 3))
    made = token_flow(2, attention="dot_product", blocks=1, attention_layers=1, hidden_channels=(6,)).double()
    points = torch.randn(4, 2, dtype=torch.float64)
    initialize(made, 2 * torch.randn(50, 4, 2, dtype=torch.float64))
    found = conditional_densities(Flow(made, StandardNormal((4, 2)).double()), points)
    assert found.shape == (2, 5, 5)
    side = torch.linspace(-density_figures.REACH, density_figures.REACH, 5, dtype=torch.float64)
    cell = float(side[1] - side[0]) ** 2
    torch.testing.assert_close((found.exp() * cell).sum(dim=(1, 2)), torch.ones(2, dtype=torch.float64))
    place = torch.tensor([side[4], side[1]])  # column 4: first coordinate; row 1: second coordinate
    other = torch.tensor([side[0], side[2]])
    joint = []
    for candidate in (place, other):
        sets = torch.cat([points[:3], candidate[None]])
        jacobian = torch.autograd.functional.jacobian(lambda t: made(t[None])[0], sets).reshape(8, 8)
        joint.append(torch.linalg.slogdet(jacobian).logabsdet - 0.5 * made(sets[None]).square().sum())
    expected = (joint[0] - joint[1]).detach()
    torch.testing.assert_close(found[1, 1, 4] - found[1, 2, 0], expected, rtol=1e-8, atol=1e-8)


def test_sampling_leaves_the_default_generator_alone() -> None:
    made = token_flow(2, blocks=1, attention_layers=1, hidden_channels=(4,))
    initialize(made, torch.randn(50, 4, 2))
    state = torch.random.get_rng_state()
    sample_sets(Flow(made, StandardNormal((4, 2))), 2, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "set"}, "Did you mean 'sets'"),
        ({"attention": "gausian"}, "Did you mean 'gaussian'"),
        ({"recipe": "certifed"}, "Did you mean 'certified'"),
        ({"steps": 0}, "steps: expected a whole number, at least 1; got 0"),
        ({"test_size": 1}, "test_size: expected a whole number, at least 2"),
        ({"lr": 0.0}, "lr: expected a number above 0"),
        ({"lipschitz": 1.0}, "lipschitz: expected a number between 0 and 1, neither included"),
        ({"averaging": 1.0}, "averaging: expected a number, at least 0 and below 1"),
        ({"warm_up": -1}, "warm_up: expected a whole number, at least 0"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(tmp_path, **change)


def test_controls_without_attention_are_certified_whatever_the_recipe(tmp_path: Path) -> None:
    config = options(tmp_path, attention="gaussian,uniform,none", recipe="released,certified")
    assert config.variants() == (
        ("gaussian", "released"),
        ("uniform", "certified"),
        ("none", "certified"),
        ("gaussian", "certified"),
    )
