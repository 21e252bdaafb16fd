"""The measures are PySODMetrics' published values, and defined for every mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from invattn.experiments.camouflage.pairs import read_grey, read_mask
from invattn.experiments.camouflage.scores import GreyImage, MapMeasures, MapScores, resize_map

NAMES = {
    "s_measure": "Smeasure",
    "f_mean": "meanFm",
    "f_max": "maxFm",
    "f_adaptive": "adpFm",
    "f_weighted": "wFmeasure",
    "e_mean": "meanEm",
    "e_max": "maxEm",
    "e_adaptive": "adpEm",
    "mae": "MAE",
}


def scores_of(prediction: GreyImage, mask: GreyImage) -> MapScores:
    measures = MapMeasures()
    measures.add(prediction, mask)
    return measures.scores()


def grey(*shape: int, seed: int = 0) -> GreyImage:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_the_reference_examples_have_their_published_values(real_data: Path) -> None:
    folder = real_data / "cod_metrics" / "pysodmetrics_examples"
    if not folder.is_dir():
        pytest.skip("the data folder holds no cod_metrics")
    measures = MapMeasures()
    for path in sorted((folder / "test_data" / "preds").iterdir()):
        mask = read_mask(folder / "test_data" / "masks" / path.name)
        measures.add(read_grey(path).numpy(), mask.numpy())
    published: dict[str, float] = {}
    for values in json.loads((folder / "version_performance.json").read_text()).values():
        published |= values
    found = measures.scores()
    # The files name 16 digits; 1e-6 is what is promised, rounding of sums stays far below.
    assert {name: getattr(found.metrics, name) for name in NAMES} == pytest.approx(
        {name: published[other] for name, other in NAMES.items()}, abs=1e-9
    )
    assert found.metrics.images == 3


BORDER = np.zeros((9, 11), dtype=np.uint8)
BORDER[:, -1] = 255
CORNER = np.zeros((9, 11), dtype=np.uint8)
CORNER[-1, -1] = 255


@pytest.mark.parametrize(
    "mask",
    [np.zeros((9, 11), np.uint8), np.full((9, 11), 255, np.uint8), BORDER, BORDER.T.copy(), CORNER],
    ids=["no object", "all object", "last column", "last row", "last pixel"],
)
@pytest.mark.parametrize("value", [0, 255, None])
def test_every_measure_is_a_number_for_any_mask(mask: GreyImage, value: int | None) -> None:
    prediction = grey(*mask.shape) if value is None else np.full(mask.shape, value, np.uint8)
    found = scores_of(prediction, mask)
    arrays = {name: values for name, values in vars(found).items() if name != "metrics"}
    assert len(arrays) == 3
    for name, number in (vars(found.metrics) | arrays).items():
        assert np.isfinite(number).all(), name


def test_a_perfect_map_is_perfect_and_its_opposite_is_not() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:25, 20:50] = 255
    best, worst = scores_of(mask, mask).metrics, scores_of(255 - mask, mask).metrics
    assert best.mae == 0
    assert best.s_measure == pytest.approx(1, abs=1e-9)
    assert best.f_max == pytest.approx(1)
    assert best.f_weighted == pytest.approx(1, abs=1e-9)
    assert worst.mae == 1
    assert worst.s_measure < 0.2


def test_curves_run_from_the_highest_threshold_and_give_mean_and_largest() -> None:
    prediction, mask = grey(20, 30), (grey(20, 30, seed=1) > 200).astype(np.uint8) * 255
    found = scores_of(prediction, mask)
    stretched = (prediction - prediction.min()) / (prediction.max() - prediction.min())
    above = (stretched * 255).astype(np.uint8) >= 100
    hits = (above & (mask > 128)).sum()
    precision, recall = hits / above.sum(), hits / (mask > 128).sum()
    by_hand = 1.3 * precision * recall / (0.3 * precision + recall)
    assert found.f_curve[255 - 100] == pytest.approx(by_hand)
    metrics = found.metrics
    assert (metrics.f_mean, metrics.f_max) == pytest.approx((found.f_curve.mean(), found.f_curve.max()))
    assert (metrics.e_mean, metrics.e_max) == pytest.approx((found.e_curve.mean(), found.e_curve.max()))


def test_measures_of_several_maps_are_means() -> None:
    masks = [(grey(16, 16, seed=seed) > 180).astype(np.uint8) * 255 for seed in (1, 2)]
    both = MapMeasures()
    single = []
    for seed, mask in enumerate(masks):
        both.add(grey(16, 16, seed=seed + 5), mask)
        single.append(scores_of(grey(16, 16, seed=seed + 5), mask))
    found = both.scores()
    assert found.s_each == pytest.approx([part.metrics.s_measure for part in single])
    for name in ("s_measure", "f_weighted", "f_adaptive", "e_adaptive", "mae", "f_mean"):
        each = [getattr(part.metrics, name) for part in single]
        assert getattr(found.metrics, name) == pytest.approx(np.mean(each)), name


def test_a_map_of_another_size_is_resized_to_the_mask() -> None:
    mask = (grey(31, 17, seed=3) > 128).astype(np.uint8) * 255
    small = grey(8, 5)
    assert scores_of(small, mask).metrics == scores_of(resize_map(small, height=31, width=17), mask).metrics
    # Bilinear between pixel centres: 0 and 200 side by side, doubled, give weights 0, 1/4, 3/4, 1.
    assert resize_map(np.array([[0, 200]], np.uint8), height=1, width=4).tolist() == [[0, 50, 150, 200]]


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)],
    ids=["colour", "float", "empty"],
)
def test_what_is_no_grey_image_is_refused(bad: GreyImage) -> None:
    with pytest.raises(ValueError, match="must be uint8 with shape"):
        MapMeasures().add(bad, np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="at least one map"):
        MapMeasures().scores()
