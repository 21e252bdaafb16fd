import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from invattn import DataError
from invattn.experiments.reconstruction.cells import (
    Cell,
    CellResult,
    cell_key,
    finished_result,
    make_cells,
    store_result,
)
from invattn.experiments.reconstruction.config import Variant
from invattn.experiments.reconstruction.run import ReconstructionConfig
from invattn.recipes import Certified, Released

RESULT = CellResult(
    mse=[1.5, math.nan],
    ssim=[0.1 + 0.2, math.nan],
    converged=[True, False],
    evaluations=[7, 8],
    non_finite=[0, 3],
    losses=[1.0, math.nan],
    stopped_at=4,
    certificate=None,
    train_seconds=1.0,
    test_seconds=2.0,
)


def make_cell(output: Path, *, repeat: int = 1, **options: Any) -> Cell:
    config = ReconstructionConfig(output=output, **options)
    return make_cells([Variant("gaussian", Certified(), "certified")], config=config, fingerprint="f", batch_size=64)[
        repeat
    ]


def test_the_key_depends_on_what_the_numbers_depend_on() -> None:
    config = ReconstructionConfig(output=Path("out"))
    variant = Variant("gaussian", Certified(), "certified")
    base = cell_key(variant, 0, config, "f", 64)
    assert base == cell_key(variant, 0, config, "f", 64)
    others = [
        cell_key(variant, 1, config, "f", 64),
        cell_key(variant, 0, config, "g", 64),
        cell_key(variant, 0, config, "f", 32),
        cell_key(Variant("dot_product", Certified(), "certified"), 0, config, "f", 64),
        cell_key(Variant("gaussian", Certified(ratio=1.0), "certified"), 0, config, "f", 64),
        cell_key(Variant("gaussian", Released(), "certified"), 0, config, "f", 64),
    ]
    changes: list[dict[str, Any]] = [{"epochs": 5}, {"lr": 0.1}, {"lipschitz": 0.5}, {"seed": 1}, {"iterations": 7}]
    for change in [*changes, {"solver": "picard"}]:
        others.append(cell_key(variant, 0, replace(config, **change), "f", 64))
    assert len({base, *others}) == 1 + len(others)
    same = replace(config, repeats=9, output=Path("elsewhere"), resume=True, data="x", attention="gaussian")
    assert cell_key(variant, 0, same, "f", 64) == base


def test_the_key_depends_on_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ReconstructionConfig(output=Path("out"))
    variant = Variant("gaussian", Certified(), "certified")
    base = cell_key(variant, 0, config, "f", 64)
    monkeypatch.setattr("invattn.experiments.reconstruction.cells.source_hash", lambda: "other")
    assert cell_key(variant, 0, config, "f", 64) != base


def test_numbers_survive_the_file_exactly(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    (tmp_path / "cells").mkdir()
    assert finished_result(cell) is None
    cell.checkpoint_file.write_bytes(b"state")
    store_result(cell, RESULT)
    assert not cell.checkpoint_file.exists()
    found = finished_result(cell)
    assert found is not None
    assert repr(found) == repr(RESULT)


def test_results_of_other_options_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    store_result(make_cell(tmp_path), RESULT)
    with pytest.raises(DataError, match=r"other options, data or code\. Choose another --output"):
        finished_result(make_cell(tmp_path, epochs=3))


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_damaged_results_are_one_line(tmp_path: Path, content: str) -> None:
    cell = make_cell(tmp_path)
    (tmp_path / "cells").mkdir()
    cell.results_file.write_text(content)
    with pytest.raises(DataError, match="cells") as caught:
        finished_result(cell)
    assert "\n" not in str(caught.value)


def test_results_without_a_number_are_refused(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    (tmp_path / "cells").mkdir()
    store_result(cell, RESULT)
    content = json.loads(cell.results_file.read_text())
    del content["ssim"]
    cell.results_file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="lacks 'ssim'"):
        finished_result(cell)


def test_the_first_repeat_is_finished_only_with_its_model_and_pictures(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, repeat=0)
    (tmp_path / "cells").mkdir()
    store_result(cell, RESULT)
    assert finished_result(cell) is None
    for path in (cell.artifact_file, cell.published_model_folder / "certificate.json"):
        path.parent.mkdir(parents=True)
        path.touch()
    assert finished_result(cell) is not None
