"""The page of a density run: what it says, what it draws, and what it leaves out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invattn._errors import DataError
from invattn._files import write_json
from invattn.experiments.density.page.headline import headline
from invattn.experiments.density.page.points import mass_levels
from invattn.experiments.density.page.samples import write_samples
from invattn.experiments.density.page.tables import Measure, training_curves
from invattn.experiments.density.record import DensityMetrics, DensityRecord, DensityResult
from invattn.experiments.merged.page import write_report


def result(attention: str, value: float | None, *, recipe: str = "certified", **changes: Any) -> DensityResult:
    metrics = DensityMetrics(
        per_dim=value,
        standard_error=None if value is None else 0.016,
        median=1.25,
        outliers=3,
        estimator_error=0.0,
        inverse_error_max=6e-6,
        spectral_radius_max=0.629,
    )
    settings: dict[str, Any] = {"seed": 0, "cpu_seconds": 31.8, "parameters": 7516, "train_loss": [2.0, 1.9, 1.8]}
    settings |= {"certificate": {"bound": 0.99, "norm": "inf,2"}, "extra": {"attention": attention, "recipe": recipe}}
    return DensityResult(variant=f"{attention}-{recipe}", metrics=metrics, **{**settings, **changes})


def record(*results: DensityResult) -> DensityRecord:
    return DensityRecord(
        command="invattn density train <b>",
        seed=0,
        versions={"torch": "2"},
        data={"name": "sets", "train": 16, "test": 5, "dimensions": 64, "notes": [], "references": {"a limit": 2.115}},
        settings={"steps": 3},
        results=results,
    )


def store(folder: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    (folder / "artifacts").mkdir(exist_ok=True)
    np.savez(
        folder / "artifacts" / f"{name}.npz",
        real_sets=generator.normal(size=(6, 32, 2)),
        sampled_sets=np.full((6, 32, 2), np.nan),
        conditional=generator.normal(size=(2, 9, 9)),
        conditional_points=generator.normal(size=(32, 2)),
        conditional_arrived=np.array([2, 31]),
        conditional_reach=np.array([6.0]),
    )


def page(folder: Path, written: DensityRecord) -> str:
    write_json(folder / "results.json", written.to_json())
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_shows_variants_controls_and_references(tmp_path: Path) -> None:
    for name in ("gaussian-certified", "pointwise-certified"):
        store(tmp_path, name)
    text = page(tmp_path, record(result("gaussian", 1.44), result("pointwise", 2.121)))
    assert "1.440" in text
    assert "a limit" in text
    assert "2.115" in text
    assert "0.681 less than the control" in text
    assert "&lt;b&gt;" in text
    assert text.count("<svg") == 1 + 3 + 4
    assert "after 31 points" in text
    assert not re.search(r'(?:src|href)="https?:', text)


def test_missing_and_damaged_artifacts_are_left_out_with_the_reason(tmp_path: Path) -> None:
    store(tmp_path, "gaussian-certified")
    path = tmp_path / "artifacts" / "gaussian-certified.npz"
    path.write_bytes(path.read_bytes()[:300])
    text = page(tmp_path, record(result("gaussian", 1.44), result("none", 2.12)))
    assert "is damaged" in text
    assert "stored no arrays" in text


def test_a_refused_likelihood_is_no_number(tmp_path: Path) -> None:
    refused = result("gaussian", None, recipe="released", refused="its radius reaches 1.3", certificate=None)
    written = record(refused, result("pointwise", 2.121))
    assert headline(written) == ["Gaussian, released: no likelihood, because its radius reaches 1.3."]
    assert re.search(r'lost">refused</td>.*<td>none</td>', page(tmp_path, written), re.DOTALL)


def test_the_headline_says_when_attention_does_not_help() -> None:
    sentence = headline(record(result("gaussian", 2.2), result("pointwise", 2.1)))[0]
    assert "0.100 more than the control" in sentence
    assert headline(record(result("none", 2.1))) == ["Controls only: no attention was trained."]
    other = result("gaussian", 2.2, seed=7)
    assert "control" not in headline(record(other, result("pointwise", 2.1)))[0]


def test_training_curves_of_no_losses_say_so() -> None:
    assert training_curves([result("gaussian", 1.0, train_loss=[])], Measure("nats")).left_out
    assert training_curves([result("gaussian", 1.0, train_loss=[1.0])], Measure("nats")).panels


def test_mass_levels_hold_their_share_of_a_normal_density() -> None:
    side = np.linspace(-5, 5, 201)
    squares = side[:, None] ** 2 + side[None] ** 2
    levels = mass_levels(-0.5 * squares + 3)
    assert levels == sorted(levels, reverse=True)
    for level, mass in zip(levels, (0.3, 0.6, 0.9, 0.99), strict=True):
        radius_squared = -2 * (level - 3)
        assert radius_squared == pytest.approx(-2 * np.log(1 - mass), rel=0.02)


def test_samples_are_written_as_picture_and_numbers(tmp_path: Path) -> None:
    sets = np.random.default_rng(0).normal(size=(5, 32, 2)).astype(np.float32)
    path = write_samples(tmp_path / "new", sets)
    assert path.name == "samples.png"
    assert np.array_equal(np.load(path.with_name("samples.npy")), sets)


def test_a_broken_density_record_is_one_line_with_the_file(tmp_path: Path) -> None:
    value = record(result("gaussian", 1.0)).to_json()
    del value["results"][0]["metrics"]
    write_json(tmp_path / "results.json", value)
    with pytest.raises(DataError, match=r"results.json: a result lacks the key 'metrics'"):
        write_report(tmp_path)


def test_points_of_the_plane_have_a_density_picture(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "artifacts").mkdir()
    side = np.linspace(-3, 3, 20)
    np.savez(
        tmp_path / "artifacts" / "none-certified.npz",
        plane_points=generator.normal(size=(50, 2)),
        plane_samples=np.full((50, 2), np.nan),
        plane_density=-0.5 * (side[:, None] ** 2 + side[None] ** 2),
        plane_reach=np.array([3.0]),
    )
    written = record(result("none", 1.363))
    data = {"name": "two-moons", "train": 9, "test": 5, "dimensions": 2, "event_shape": [2], "references": {}}
    text = page(tmp_path, replace(written, data=data))
    assert "Two moons in the plane" in text
    assert "1.363 nats per dimension" in text
    assert text.count("<svg") == 3, "data, samples, training"
    assert text.count('class="sheet"') == 1
    assert "density of No attention" in text


def test_a_single_picture_of_points_is_written(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    path = write_samples(tmp_path, points)
    assert path.exists()
    assert np.array_equal(np.load(tmp_path / "samples.npy"), points)
