"""JSON files hold exactly what was given, and broken ones end in one clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from invattn import _files
from invattn._errors import DataError


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    _files.write_json(path, {"a": [math.nan, math.inf, -math.inf, 0.1], "b": {"c": np.float32("nan")}})
    assert json.loads(path.read_text()) == {"a": [None, None, None, 0.1], "b": {"c": None}}


def test_floats_survive_exactly(tmp_path: Path) -> None:
    values = [1.555e-6, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308]
    _files.write_json(tmp_path / "r.json", values)
    assert _files.read_json(tmp_path / "r.json") == values


def test_numpy_scalars_paths_and_tuples_are_reduced(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    _files.write_json(path, {"n": np.int64(3), "x": np.float64(0.5), "p": Path("a/b"), "t": (1, True), "u": "é"})
    assert _files.read_json(path) == {"n": 3, "x": 0.5, "p": "a/b", "t": [1, True], "u": "é"}


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}, [np.zeros(2)], {"a": {1, 2}}])
def test_other_values_are_refused_before_anything_is_written(tmp_path: Path, value: object) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="record"):
        _files.write_json(path, value)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a": 1,}', b"\xff\xfe\x00", b"[" * 100_000],
    ids=["empty", "cut", "comma", "binary", "deep"],
)
def test_broken_json_is_one_line_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json is not valid JSON") as caught:
        _files.read_json(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        _files.read_json(tmp_path / "results.json")
    with pytest.raises(DataError, match="cannot be read"):
        _files.read_json(tmp_path)
