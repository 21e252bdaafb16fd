"""The table of point set densities."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from invattn.experiments.density.record import DensityMetrics, DensityRecord, DensityResult


@pytest.fixture
def density_sets() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "density_sets.py"
    spec = importlib.util.spec_from_file_location("density_sets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["density_sets"] = module
    spec.loader.exec_module(module)
    return module


def result(variant: str, value: float | None, seed: int) -> DensityResult:
    metrics = DensityMetrics(
        per_dim=value,
        standard_error=None if value is None else 0.01,
        median=1.0,
        outliers=0,
        estimator_error=0.0,
        inverse_error_max=1e-6 * (seed + 1),
        spectral_radius_max=0.1 * (seed + 1),
    )
    return DensityResult(variant=variant, metrics=metrics, seed=seed, cpu_seconds=10.0 + seed, parameters=1)


def test_a_row_holds_every_seed_their_mean_and_the_worst_of_the_rest(density_sets: ModuleType) -> None:
    record = DensityRecord(
        command="c",
        seed=0,
        versions={},
        data={"references": {"a limit": 2.115}},
        settings={},
        results=[
            result("gaussian-certified", 1.0, 0),
            result("gaussian-certified", 1.5, 1),
            result("dot_product-released", None, 0),
            result("none-certified", 2.0, 0),
        ],
    )
    text = density_sets.table([(density_sets.GROUPS[0], record)])
    title = "4 x (3 attention, MLP), 250 steps"
    assert f"| gaussian-certified | {title} | 1.000, 1.500 | 1.250 | 2.0e-06 | 0.200 | 10 |" in text
    assert "| refused | - |" in text
    assert "| none-certified | 4 x (MLP), 250 steps |" in text
    assert "| *a limit* | | | 2.115 | | | |" in text


def test_every_group_is_a_valid_command(density_sets: ModuleType, tmp_path: Path) -> None:
    from invattn.experiments.density.command import TRAIN

    for group in density_sets.GROUPS:
        options = TRAIN.parser().parse_args([*group.options, "--output", str(tmp_path)])
        assert options.data == "sets"
