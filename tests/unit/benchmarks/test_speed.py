"""The speed benchmarks: what the page says of rows, what is required, and that the scripts run."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "speed"))
    return importlib.import_module


def timed(own: float, **others: float) -> dict[str, Any]:
    """A row of three rounds in which everything is slower each time by the same factor."""
    times = {"chosen": own, **others}
    seconds = {name: [value, 2 * value, 3 * value] for name, value in times.items()}
    return {"ours": "chosen", "cpu_seconds": seconds, "load": 1.0}


def content(rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"processor": "a processor", "cores": 2, "vector_instructions": "AVX2"}
    return {"machine": machine, "versions": {"torch": "2"}, "rows": rows}


def test_ratios_are_taken_round_by_round(load: Any) -> None:
    required = load("required")
    row = {"ours": "chosen", "cpu_seconds": {"chosen": [1.0, 10.0, 1.0], "formula": [4.0, 40.0, 3.0]}}
    assert required.ratio(row, "formula") == 4.0
    assert required.ratio(row, "sdpa") is None


def test_a_figure_passes_fails_or_is_not_measured(load: Any) -> None:
    required = load("required")
    figure = next(entry for entry in required.REQUIRED if entry.what.startswith("row softmax, forward over the"))
    assert figure.verdict({}) == (None, "not measured")
    assert figure.verdict({"large[exp-row-value]": timed(1.0, formula=5.5)}) == (5.5, "pass")
    assert figure.verdict({"large[exp-row-value]": timed(1.0, formula=4.5)})[1] == "FAIL"
    share = next(entry for entry in required.REQUIRED if "memory over the formula" in entry.what)
    rows = {"memory[exp-row-log-det-9701]": {"peak_bytes": {"chosen": 30, "formula": 200}}}
    assert share.verdict(rows) == (0.15, "FAIL")


def test_the_exponent_is_the_slope_over_all_required_sizes(load: Any) -> None:
    required = load("required")
    rows = {f"growth[elu+1-row-sum-value-{tokens}]": timed(tokens**1.5) for tokens in (1024, *required.TOKENS)}
    figure = next(entry for entry in required.REQUIRED if "exponent of time" in entry.what)
    value, verdict = figure.verdict(rows)
    assert math.isclose(value, 1.5)
    assert verdict == "FAIL"
    del rows["growth[elu+1-row-sum-value-262144]"]
    assert figure.verdict(rows)[1] == "not measured"


def test_the_least_ratio_of_small_inputs_needs_every_row(load: Any) -> None:
    required = load("required")
    figure = next(entry for entry in required.REQUIRED if "slowest of 16" in entry.what)
    rows = {f"small[{number}]": timed(1.0, formula=1.0 + number / 10) for number in range(15)}
    assert figure.verdict(rows)[1] == "not measured"
    rows["small[15]"] = timed(1.0, formula=0.8)
    assert figure.verdict(rows) == (0.8, "FAIL")


def test_the_page_shows_every_row_and_is_the_same_each_time(load: Any, tmp_path: Path) -> None:
    rows = {
        "large[exp-row-value]": timed(0.5, formula=3.0, sdpa=0.5),
        "inverse[gaussian]": timed(0.5, **{"50 plain steps": 3.0})
        | {"evaluations": 8.25, "error": 1e-7, "wall_load": 0.5}
        | {"wall_seconds_2_threads": {"chosen": [1.0], "50 plain steps": [4.0]}},
        "growth[elu+1-row-sum-value-9701]": timed(0.01, formula=1.0),
        "growth[elu+1-row-sum-value-38804]": timed(0.04),
        "memory[exp-row-value-9701]": {"ours": "chosen", "peak_bytes": {"chosen": 2**20, "formula": 2**30}},
    }
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content(rows)))
    page = load("page")
    for folder in ("one", "two"):
        assert page.main([str(path), "--docs", str(tmp_path / folder)]) == 0
    text = (tmp_path / "one" / "benchmarks.md").read_text()
    assert "|  | formula | 6 s | 6.00x | 3 | 1 | – | – | – |" in text
    assert "| row softmax, forward over the formula | ≥ 5x | 6x | pass | – |" in text
    assert "| inverse, gaussian, over 50 plain steps | ≥ 5x | 6x | pass | 4.00x |" in text
    assert "| gaussian (8.25 evaluations, error 1e-07) | chosen |" in text
    assert "| exp-row-value-9701 | 1 MiB | 1,024 MiB |" in text
    assert "9,701: 20 ms, 38,804: 80 ms | 1.00 | 1.00 |" in text
    plots = [(tmp_path / folder / "images" / "benchmarks-growth.svg").read_bytes() for folder in ("one", "two")]
    assert plots[0] == plots[1]


def test_the_page_of_a_file_that_is_not_there_is_one_line(load: Any, tmp_path: Path, capsys: Any) -> None:
    assert load("page").main([str(tmp_path / "none.json"), "--docs", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("page.py: ")


def test_rows_are_kept_one_by_one(load: Any, tmp_path: Path) -> None:
    results_file = load("results_file")
    kept = results_file.ResultsFile(tmp_path / "new" / "rows.json", command="make bench")
    assert kept.rows == {}
    kept.keep("one", {"seconds": [0.123456789, 3]})
    results_file.ResultsFile(kept.path, command="make bench").keep("two", {"seconds": [1.0]})
    assert kept.rows == {"one": {"seconds": [0.1235, 3]}, "two": {"seconds": [1.0]}}
    assert "node" not in json.loads(kept.path.read_text())["machine"]


def test_the_script_for_gpus_measures_and_says_what_it_left_out(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = load("gpu")
    monkeypatch.setattr(gpu, "ROUNDS", 1)
    options = ["--device", "cpu", "--tokens", "0", "--blocks", "1", "--batch", "2", "--skip-tests"]
    assert gpu.main([*options, "--results", str(tmp_path / "rows.json")]) == 0
    found = json.loads((tmp_path / "rows.json").read_text())
    assert len(found["rows"]["training_step"]["invattn"]["milliseconds"]) == gpu.ROUNDS
    assert (found["tests"], found["left_out"]) == ("skipped", [])
    assert list(gpu.attention("exp-row", "value", 8, 2, device="cpu")) == ["chosen", "formula", "fused", "sdpa"]
    assert list(gpu.attention("elu+1-row", "value", 8, 2, device="cpu")) == ["chosen", "formula"]
    assert gpu.main([*options, "--minutes", "0", "--results", str(tmp_path / "rows.json")]) == 0
    assert json.loads((tmp_path / "rows.json").read_text())["left_out"] == ["training_step"]


def test_without_a_gpu_the_script_says_so_in_one_line(load: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load("gpu").main([]) == 1
    assert capsys.readouterr().err.count("\n") == 1
