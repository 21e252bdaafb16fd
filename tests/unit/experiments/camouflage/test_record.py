"""Records of camouflaged object detection: the promised keys, round trips, refusals; Table 4 as printed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from invattn._errors import DataError
from invattn.experiments.camouflage.record import CamouflageRecord, CamouflageRow, MapMetrics
from invattn.experiments.kit.record import published_detection, published_rows

SCORES = ("s_measure", "f_mean", "f_max", "f_adaptive", "f_weighted", "e_mean", "e_max", "e_adaptive", "mae")


def row(**changes: Any) -> CamouflageRow:
    metrics = MapMetrics(**dict.fromkeys(SCORES, 0.5), images=3)
    settings: dict[str, Any] = {"attention": "gaussian", "recipe": "certified", "seed": 1, "sets": {"CAMO": metrics}}
    settings |= {"parameters": 5, "seconds": 1.5, "peak_memory": 2**30, "train_loss": [0.5, math.nan]}
    return CamouflageRow(**settings | changes)


def record(*rows: CamouflageRow) -> CamouflageRecord:
    return CamouflageRecord(command="c", seed=1, versions={}, data={"name": "synthetic"}, settings={}, rows=rows)


def test_the_file_has_the_promised_keys() -> None:
    content = record(row()).to_json()
    assert CamouflageRecord.wrote(content)
    assert {"attention", "recipe", "seed", "sets", "parameters", "seconds", "peak_memory"} <= content["rows"][0].keys()
    assert content["rows"][0]["sets"] == {"CAMO": {**dict.fromkeys(SCORES, 0.5), "images": 3}}
    assert content["rows"][0]["train_loss"] == [0.5, None]


def test_records_come_back_as_they_were() -> None:
    content = record(row(extra={"s_each": {"CAMO": [0.1]}}), row(attention="none", recipe="none")).to_json()
    assert CamouflageRecord.from_json(content).to_json() == content
    assert math.isnan(CamouflageRecord.from_json(content).rows[0].train_loss[1])


@pytest.mark.parametrize("key", ["attention", "sets", "peak_memory"])
def test_a_missing_key_is_named(key: str) -> None:
    content = record(row()).to_json()
    del content["rows"][0][key]
    with pytest.raises(DataError, match=key):
        CamouflageRecord.from_json(content)


@pytest.mark.parametrize("change", [{"schema_version": 99}, {"experiment": "density"}])
def test_other_layouts_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no record of `invattn camouflage train`"):
        CamouflageRecord.from_json(record(row()).to_json() | change)


def test_table_4_is_the_papers() -> None:
    assert len(published_rows("table4")) == 36
    assert published_detection("none", "none", "CHAMELEON") == {
        "s_measure": 0.894,
        "f_mean": 0.843,
        "e_mean": 0.951,
        "mae": 0.028,
    }
    dot = published_detection("dot_product", "paper", "CAMO")
    assert dot is not None
    assert dot["s_measure"] == 0.686
    assert published_detection("gaussian", "certified", "CAMO") is None
    assert published_detection("gaussian", "paper", "synthetic") is None
    # Column sums, worked out by hand from the printed table.
    sums = {key: sum(float(entry[key]) for entry in published_rows("table4")) for key in ("s_measure", "mae")}
    assert sums == pytest.approx({"s_measure": 29.551, "mae": 1.950})
