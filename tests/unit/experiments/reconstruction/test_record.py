"""The record of the reconstruction experiment has the documented keys and survives a round trip."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest

from invattn import _files
from invattn._errors import DataError
from invattn.experiments.reconstruction.record import ReconstructionMetrics, ReconstructionRecord, ReconstructionResult

METRICS = ReconstructionMetrics(
    mse=1e-9, mse_max=3e-9, mse_std=1e-11, ssim=1.0, v_score=1.0, converged=1.0, non_finite=0,
    evaluations_mean=8.2, evaluations_max=11,
)  # fmt: skip


def make_record() -> ReconstructionRecord:
    result = ReconstructionResult(
        attention="gaussian",
        recipe="certified",
        dataset="cifar10",
        image_size="32",
        images=500,
        repeats=3,
        metrics=METRICS,
        certificate={"bound": 0.9, "norm": "inf,2"},
        paper={"mse": 84.872, "ssim": 0.988, "v_score": 0.85625},
        train_loss=[[1.2, 1.1], [1.3, 1.2], [1.1, 1.0]],
        seconds={"train": 12.5, "test": 0.5},
        extra={"note": "kept"},
    )
    return ReconstructionRecord(
        command="invattn reconstruct --data cifar10",
        seed=0,
        versions={"torch": "2.13.0"},
        data={"name": "cifar10", "fingerprint": "ab" * 32, "train": 1000, "test": 500, "notes": ["a note"]},
        settings={"lr": 0.003},
        results=[result],
        extra={"commit": "abc"},
    )


def test_the_documented_keys_are_there() -> None:
    value = make_record().to_json()
    assert set(value) == {"schema_version", "command", "seed", "versions", "data", "settings", "results", "commit"}
    assert next(iter(value)) == "schema_version"
    assert value["schema_version"] == 1
    entry = value["results"][0]
    documented = "attention recipe dataset image_size images repeats metrics certificate paper"
    assert set(documented.split()) <= set(entry)
    measured = "mse mse_max mse_std ssim v_score converged non_finite evaluations_mean evaluations_max"
    assert set(entry["metrics"]) == set(measured.split())
    assert entry["note"] == "kept"


def test_round_trip_through_a_file_is_exact(tmp_path: Path) -> None:
    record = make_record()
    _files.write_json(tmp_path / "results.json", record.to_json())
    assert ReconstructionRecord.read(tmp_path / "results.json") == record


def test_numbers_that_are_not_finite_come_back_as_nan() -> None:
    value = make_record().to_json()
    value["results"][0]["metrics"]["mse"] = None
    value["results"][0]["train_loss"] = [[None, 1.0]]
    value["results"][0]["seconds"]["test"] = None
    result = ReconstructionRecord.from_json(value).results[0]
    assert math.isnan(result.metrics.mse)
    assert math.isnan(result.train_loss[0][0])
    assert math.isnan(result.seconds["test"])
    assert ReconstructionRecord.from_json(value).to_json() == value


def test_one_loss_per_repeat_is_read_as_one_epoch() -> None:
    value = make_record().to_json()
    value["results"][0]["train_loss"] = [1.2, 1.3]
    assert ReconstructionRecord.from_json(value).results[0].train_loss == [[1.2], [1.3]]


def set_key(value: dict[str, Any], path: tuple[Any, ...], item: Any) -> None:
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = item


@pytest.mark.parametrize(
    ("path", "item", "match"),
    [
        (("schema_version",), 2, "schema version 2"),
        (("results",), {}, "'results' of results.json must be list"),
        (("results", 0), 5, "must be a JSON object"),
        (("results", 0, "metrics"), None, "'metrics'"),
        (("results", 0, "metrics", "mse"), "low", "'mse'"),
        (("results", 0, "metrics", "mse"), True, "'mse'"),
        (("results", 0, "images"), "many", "'images'"),
        (("results", 0, "attention"), 3, "'attention'"),
        (("results", 0, "seconds"), {"train": "x"}, "a number was expected"),
        (("results", 0, "certificate"), 0.9, "'certificate'"),
        (("seed",), None, "'seed'"),
    ],
)
def test_a_wrong_value_is_one_line(path: tuple[Any, ...], item: Any, match: str) -> None:
    value = copy.deepcopy(make_record().to_json())
    set_key(value, path, item)
    with pytest.raises(DataError, match=match) as caught:
        ReconstructionRecord.from_json(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["schema_version", "command", "seed", "versions", "data", "settings", "results"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    value = make_record().to_json()
    del value[key]
    _files.write_json(tmp_path / "results.json", value)
    with pytest.raises(DataError, match=rf"results\.json: .*{key}"):
        ReconstructionRecord.read(tmp_path / "results.json")


@pytest.mark.parametrize("value", [None, [], 3, "text"])
def test_a_record_that_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="must be a JSON object"):
        ReconstructionRecord.from_json(value)
