"""The page of a camouflage run, and one page about several runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invattn._errors import DataError
from invattn._files import write_json
from invattn.experiments.camouflage.page.tables import comparisons, network_rows, score_tables
from invattn.experiments.camouflage.record import CamouflageRecord, CamouflageRow, MapMetrics
from invattn.experiments.merged.overview import overview
from invattn.experiments.merged.page import body_of, write_merged, write_report


def metrics(s_measure: float) -> MapMetrics:
    names = ("f_mean", "f_max", "f_adaptive", "f_weighted", "e_mean", "e_max", "e_adaptive")
    return MapMetrics(s_measure=s_measure, **dict.fromkeys(names, 0.7), mae=0.1, images=4)


def row(attention: str, recipe: str, s_measure: float, *, seed: int = 0, **changes: Any) -> CamouflageRow:
    settings: dict[str, Any] = {"parameters": 1000, "seconds": 10.0, "peak_memory": 2**30, "train_loss": [0.6, 0.4]}
    if attention != "none":
        settings["inverse"] = {"error_max": 2e-6, "error_median": 1e-7, "converged": 1.0, "images": 4}
    if recipe == "certified":
        settings["certificate"] = {"bound": 0.9, "norm": "inf,2"}
    return CamouflageRow(
        attention=attention, recipe=recipe, seed=seed, sets={"CAMO": metrics(s_measure)}, **settings | changes
    )


ROWS = (
    row("gaussian", "certified", 0.70),
    row("gaussian", "certified", 0.74, seed=1),
    row("none", "none", 0.66),
    row("gaussian", "paper", 0.601, inverse={"error_max": None, "error_median": 0.1, "converged": 0.5, "images": 4}),
    row("gaussian", "unconstrained", 0.71),
    row("gaussian", "unconstrained", 0.73, seed=1),
)


def record(rows: Sequence[CamouflageRow] = ROWS) -> CamouflageRecord:
    data = {"name": "synthetic", "train": 8, "sets": {"CAMO": 4}, "mean_mask": {"CAMO": 0.4}, "notes": ["a <note>"]}
    return CamouflageRecord(command="invattn <b>", seed=0, versions={}, data=data, settings={"lr": 1}, rows=rows)


def run(folder: Path, shown: CamouflageRecord | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_json(folder / "results.json", (shown or record()).to_json())
    (folder / "artifacts").mkdir(exist_ok=True)
    for name in ("none-none", "gaussian-certified", "gaussian-paper"):
        np.savez(
            folder / "artifacts" / f"{name}.npz",
            losses=np.array([0.6, 0.4]),
            threshold_sets=np.array(["CAMO"]),
            threshold_f=np.linspace(0, 1, 256)[None],
            threshold_e=np.linspace(0, 1, 256)[None],
            map_sets=np.array(["CAMO", "CAMO"]),
            map_pictures=np.zeros((2, 3, 8, 8, 3), np.uint8),
        )
    return folder


def test_table_4_stands_beside_the_papers_figures(tmp_path: Path) -> None:
    ((name, rows),) = score_tables(record()).items()
    assert name == "CAMO"
    found = {entry.label: entry for entry in rows}
    assert list(found) == [
        "Base (no attention)",
        "Gaussian, unconstrained",
        "Gaussian, paper",
        "Gaussian, certified",
    ]
    paper, certified = found["Gaussian, paper"], found["Gaussian, certified"]
    # Table 4: InvGaus on CAMO has S 0.801.
    assert (paper.ours["s_measure"], paper.paper["s_measure"]) == (pytest.approx(0.601), 0.801)
    assert (certified.ours["s_measure"], certified.paper) == (pytest.approx(0.72), {})
    assert found["Base (no attention)"].paper["s_measure"] == 0.791
    assert certified.seeds == 2
    text = write_report(run(tmp_path)).read_text(encoding="utf-8")
    assert "CAMO: 4 images; predicting the mean training mask has S = 0.400" in text
    assert '<td class="edge">0.601<small>0.801 (-0.200)</small></td>' in text
    assert '<td class="edge">0.720</td>' in text


def test_networks_show_the_worst_inverse_over_seeds() -> None:
    rows = {entry.label: entry for entry in network_rows(record())}
    assert rows["Gaussian, paper"].error_max == "not finite"
    assert rows["Gaussian, paper"].lost
    assert not rows["Gaussian, certified"].lost
    assert rows["Gaussian, certified"].error_max == "2.0e-6"
    assert rows["Gaussian, certified"].bound.startswith("0.9")
    assert rows["Base (no attention)"].error_max == "–"
    assert rows["Gaussian, unconstrained"].bound == "none"


def test_the_comparison_is_paired_by_seed() -> None:
    (found,) = comparisons(record())
    assert found.differences == pytest.approx((-0.01, 0.01))
    # Standard deviation 0.01 sqrt 2 over sqrt 2, times the 97.5% quantile of Student's t with 1 degree of freedom.
    assert found.half_width == pytest.approx(12.706 * 0.01, rel=1e-3)
    assert found.mean == pytest.approx(0, abs=1e-12)
    (alone,) = comparisons(record([ROWS[0], ROWS[4]]))
    assert alone.text() == "-0.010"
    assert comparisons(record([ROWS[0], ROWS[5]])) == []


def test_the_page_is_whole_and_escapes(tmp_path: Path) -> None:
    text = write_report(run(tmp_path)).read_text(encoding="utf-8")
    assert "invattn &lt;b&gt;" in text
    assert "a &lt;note&gt;" in text
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    for anchor in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{anchor}"' in text, anchor
    assert "Every certified module inverts" in text
    assert "Left out: Gaussian (unconstrained), because the run stored no arrays for figures." in text
    identifiers = re.findall(r'\sid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))


def test_a_certified_module_that_fails_is_said(tmp_path: Path) -> None:
    bad = row(
        "gaussian", "certified", 0.7, inverse={"error_max": 2e-4, "error_median": 0.0, "converged": 1, "images": 1}
    )
    text = write_report(run(tmp_path, record([bad]))).read_text(encoding="utf-8")
    assert "did not invert to a relative error of 1e-4" in text


def test_a_stopped_training_is_said(tmp_path: Path) -> None:
    stopped = row(
        "gaussian", "paper", 0.5, extra={"stopped": "the training loss was not finite at step 3"}, inverse=None
    )
    shown = CamouflageRow(**{**vars(stopped), "sets": {}})
    text = write_report(run(tmp_path, record([ROWS[2], shown]))).read_text(encoding="utf-8")
    assert "not finite at step 3; it was not measured" in text


def test_runs_are_merged_with_tables_2_to_5(tmp_path: Path) -> None:
    folders = [run(tmp_path / name) for name in ("a", "b")]
    text = write_merged(folders, tmp_path / "out").read_text(encoding="utf-8")
    identifiers = re.findall(r'\sid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    for anchor in re.findall(r'href="#([^"]+)"', text):
        assert anchor in identifiers, anchor
    assert "Fig. 7: maps (2)" in text
    assert text.count("<main>") == 1
    for number in (2, 3, 4, 5):
        assert f">Table {number}</a>" in text


def test_the_overview_puts_ours_with_the_published_rows() -> None:
    tables = overview([record(), record()])
    assert [table.title.split(":")[0] for table in tables] == ["Table 2", "Table 3", "Table 4", "Table 5"]
    assert [table.ours for table in tables] == [False, False, True, False]
    assert [len([entry for entry in table.rows if entry.run == "paper"]) for table in tables] == [12, 8, 36, 4]
    ours = [entry for entry in tables[2].rows if entry.run == "2"]
    assert len(ours) == 4
    assert all(entry.data == "CAMO, 4 images" for entry in ours)


def test_identifiers_get_their_prefix() -> None:
    page = '<main><i id="a"></i><a href="#a"></a><u xlink:href="#a" style="fill:url(#a)"></u></main>'
    found = body_of(page, prefix="x-")
    assert found == '<i id="x-a"></i><a href="#x-a"></a><u xlink:href="#x-a" style="fill:url(#x-a)"></u>'


def test_a_folder_without_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        write_merged([tmp_path / "missing", tmp_path], tmp_path)
    assert not (tmp_path / "merged.html").exists()
