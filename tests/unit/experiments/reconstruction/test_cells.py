import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from invattn import DataError
from invattn.experiments.kit.data.sets import ImageData
from invattn.experiments.reconstruction.cells import CellResult, ReconstructionCell, summarise, summarise_metrics
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


def make_cell(output: Path, *, repeat: int = 1, **options: Any) -> ReconstructionCell:
    images = torch.zeros(64, 3, 4, 4, dtype=torch.uint8)
    return ReconstructionCell(
        config=ReconstructionConfig(output=output, **options),
        data=ImageData("photos", images, images, fingerprint="f", notes=(), native_size="4x4"),
        attention="gaussian",
        recipe="certified",
        form=Certified(),
        repeat=repeat,
    )


def test_the_key_depends_on_what_the_numbers_depend_on() -> None:
    base = make_cell(Path("out"), repeat=0)
    assert base.key == make_cell(Path("out"), repeat=0).key
    others = [
        replace(base, repeat=1),
        replace(base, data=replace(base.data, fingerprint="g")),
        replace(base, data=replace(base.data, train=base.data.train[:32])),
        replace(base, attention="dot_product"),
        replace(base, form=Certified(ratio=1.0)),
        replace(base, form=Released()),
    ]
    changes: list[dict[str, Any]] = [{"epochs": 5}, {"lr": 0.1}, {"lipschitz": 0.5}, {"seed": 1}, {"iterations": 7}]
    others += [replace(base, config=replace(base.config, **change)) for change in [*changes, {"solver": "picard"}]]
    assert len({cell.key for cell in [base, *others]}) == 1 + len(others)
    same = replace(base.config, repeats=9, output=Path("elsewhere"), resume=True, data="x", attention="gaussian")
    assert replace(base, config=same).key == base.key


def test_the_key_depends_on_the_code_that_runs_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_cell(Path("out"))
    base = cell.key
    hashed: Callable[[str], str] = "other code of {}".format
    monkeypatch.setattr("invattn.experiments.kit.cells.source_hash", hashed)
    assert cell.key != base


def test_numbers_survive_the_file_exactly(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    (tmp_path / "cells").mkdir()
    assert cell.finished() is None
    cell.file("ckpt").write_bytes(b"state")
    cell.finish(RESULT)
    assert not cell.file("ckpt").exists()
    found = cell.finished()
    assert found is not None
    assert repr(found) == repr(RESULT)


def test_results_of_other_options_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    make_cell(tmp_path).finish(RESULT)
    with pytest.raises(DataError, match=r"other options, data or code\. Choose another --output"):
        make_cell(tmp_path, epochs=3).finished()


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_damaged_results_are_one_line(tmp_path: Path, content: str) -> None:
    cell = make_cell(tmp_path)
    (tmp_path / "cells").mkdir()
    cell.file("json").write_text(content)
    with pytest.raises(DataError, match="cells") as caught:
        cell.finished()
    assert "\n" not in str(caught.value)


def test_results_without_a_number_are_refused(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    (tmp_path / "cells").mkdir()
    cell.finish(RESULT)
    content = json.loads(cell.file("json").read_text())
    del content["ssim"]
    cell.file("json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="lacks 'ssim'"):
        cell.finished()


def test_the_first_repeat_is_finished_only_with_its_model_and_pictures(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, repeat=0)
    (tmp_path / "cells").mkdir()
    cell.finish(RESULT)
    assert cell.finished() is None
    for path in (cell.artifact_file, cell.model_folder / "certificate.json"):
        path.parent.mkdir(parents=True)
        path.touch()
    assert cell.finished() is not None


def numbers(mse: list[float], *, evaluations: list[int], bound: float | None = None, bad: int = 0) -> CellResult:
    return CellResult(
        mse=mse,
        ssim=[1.0, 0.5],
        converged=[True, len(mse) == 2 and mse[0] < 10],
        evaluations=evaluations,
        non_finite=[bad, 0],
        losses=[1.25, 1.0],
        stopped_at=None,
        certificate=None if bound is None else {"bound": bound, "norm": "inf,2", "derivation": "", "factors": {}},
        train_seconds=1.5,
        test_seconds=0.25,
    )


def test_means_over_images_and_then_over_repeats() -> None:
    second = numbers([12.0, 6.0], evaluations=[9, 4], bad=5)
    metrics = summarise_metrics([numbers([2.0, 4.0], evaluations=[3, 4]), second])
    assert metrics.mse == (3 + 9) / 2
    assert metrics.mse_max == 12.0
    assert metrics.mse_std == pytest.approx(math.sqrt((3 - 6) ** 2 + (9 - 6) ** 2))
    assert metrics.ssim == 0.75
    assert metrics.v_score == (1 + 0.5) / 2
    assert metrics.converged == (1 + 0.5) / 2
    assert metrics.non_finite == 5
    assert metrics.evaluations_mean == (3.5 + 6.5) / 2
    assert metrics.evaluations_max == 9


def test_one_repeat_has_no_spread() -> None:
    assert summarise_metrics([numbers([1.0, 2.0], evaluations=[1, 1])]).mse_std == 0.0


def test_an_error_that_is_not_a_number_stays_visible() -> None:
    metrics = summarise_metrics([numbers([math.nan, 1.0], evaluations=[1, 1])])
    assert math.isnan(metrics.mse)
    assert math.isnan(metrics.mse_max)
    assert metrics.v_score == 0.5


def test_the_result_stands_beside_the_paper_and_has_the_weakest_certificate() -> None:
    results = [numbers([1.0, 2.0], evaluations=[1, 1], bound=bound) for bound in (0.8, 0.9)]
    first = replace(make_cell(Path("out"), repeat=0), attention="dot_product")
    svhn = replace(first, data=replace(first.data, name="svhn"))
    result = summarise(svhn, results)
    assert result.certificate == {"bound": 0.9, "norm": "inf,2"}
    assert result.paper == {"mse": 508.016, "ssim": 0.892, "v_score": 0.44583}
    assert (result.images, result.repeats, result.image_size) == (2, 2, 32)
    assert result.seconds == {"train": 3.0, "test": 0.5}
    assert result.train_loss == [[1.25, 1.0]] * 2
    assert result.extra["mse_per_repeat"] == [1.5, 1.5]
    assert summarise(first, results).paper is None
