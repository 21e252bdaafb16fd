import math
from pathlib import Path

import pytest

from invattn.experiments.reconstruction.cells import CellResult
from invattn.experiments.reconstruction.config import Variant
from invattn.experiments.reconstruction.run import ReconstructionConfig
from invattn.experiments.reconstruction.summary import summarise, summarise_metrics
from invattn.recipes import Certified


def cell(mse: list[float], *, evaluations: list[int], bound: float | None = None, bad: int = 0) -> CellResult:
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
    metrics = summarise_metrics([cell([2.0, 4.0], evaluations=[3, 4]), cell([12.0, 6.0], evaluations=[9, 4], bad=5)])
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
    assert summarise_metrics([cell([1.0, 2.0], evaluations=[1, 1])]).mse_std == 0.0


def test_an_error_that_is_not_a_number_stays_visible() -> None:
    metrics = summarise_metrics([cell([math.nan, 1.0], evaluations=[1, 1])])
    assert math.isnan(metrics.mse)
    assert math.isnan(metrics.mse_max)
    assert metrics.v_score == 0.5


def test_the_result_stands_beside_the_paper_and_has_the_weakest_certificate() -> None:
    config = ReconstructionConfig(output=Path("out"), repeats=2)
    cells = [cell([1.0, 2.0], evaluations=[1, 1], bound=0.8), cell([1.0, 2.0], evaluations=[1, 1], bound=0.9)]
    variant = Variant("dot_product", Certified(), "certified")
    result = summarise(variant, cells, config=config, dataset="svhn")
    assert result.certificate == {"bound": 0.9, "norm": "inf,2"}
    assert result.paper == {"mse": 508.016, "ssim": 0.892, "v_score": 0.44583}
    assert (result.images, result.repeats, result.image_size) == (2, 2, 32)
    assert result.seconds == {"train": 3.0, "test": 0.5}
    assert result.train_loss == [[1.25, 1.0]] * 2
    assert result.extra["mse_per_repeat"] == [1.5, 1.5]
    assert summarise(variant, cells, config=config, dataset="photos").paper is None
