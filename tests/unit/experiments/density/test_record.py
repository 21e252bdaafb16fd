"""The record of a density run survives the file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from invattn._errors import DataError
from invattn._files import read_json, write_json
from invattn.experiments.density.record import DensityMetrics, DensityRecord, DensityResult


def make() -> DensityRecord:
    metrics = DensityMetrics(
        per_dim=1.5,
        standard_error=0.01,
        median=1.4,
        outliers=2,
        estimator_error=0.0,
        inverse_error_max=1e-6,
        spectral_radius_max=0.7,
    )
    refused = DensityMetrics(**{**vars(metrics), "per_dim": None, "standard_error": None, "median": math.inf})
    shared = {"seed": 3, "cpu_seconds": 2.5, "parameters": 10}
    return DensityRecord(
        command="invattn density train",
        seed=3,
        versions={"torch": "2"},
        data={"name": "sets"},
        settings={"steps": 2},
        results=[
            DensityResult(variant="a-certified", metrics=metrics, train_loss=[2.0, 1.5], extra={"repeat": 0}, **shared),
            DensityResult(variant="b-released", metrics=refused, refused="diverges", **shared),
        ],
    )


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", make().to_json())
    plain = read_json(tmp_path / "results.json")
    assert list(plain)[:2] == ["schema_version", "experiment"]
    first = plain["results"][0]
    assert {"variant", "metrics", "seed", "cpu_seconds", "parameters"} <= first.keys()
    wanted = {"nats_per_dim", "standard_error", "median", "outliers", "inverse_error_max", "spectral_radius_max"}
    assert wanted <= first["metrics"].keys()
    again = DensityRecord.from_json(plain)
    assert again.results[0] == make().results[0]
    assert again.results[1].metrics.per_dim is None
    assert math.isnan(again.results[1].metrics.median)
    assert again.results[1].refused == "diverges"


@pytest.mark.parametrize(
    "change", [{"experiment": "x"}, {"schema_version": 99}, {"results": [{"variant": 1}]}, {"seed": True}]
)
def test_a_foreign_record_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        DensityRecord.from_json(make().to_json() | change)
