"""Every measure that PySODMetrics publishes a reference value of has that value, and one for every mask."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from py_sod_metrics import (
    CamouflageContextMeasure,
    ContextMeasure,
    FmeasureHandler,
    FPRHandler,
    IOUHandler,
    KappaHandler,
    MSIoU,
    RecallHandler,
    SizeInvarianceFmeasureV2,
    SizeInvarianceMAE,
)
from scipy import ndimage

from invattn.experiments.camouflage.extra_scores import EveryMeasure, MultiScaleIoU, simplify
from invattn.experiments.camouflage.pairs import read_grey, read_mask
from invattn.experiments.camouflage.scores import GreyImage, MapMeasures

FORMULAS = ("fm", "f1", "pre", "rec", "fpr", "iou", "dice", "spec", "ber", "oa", "kappa")
FORMS = ("adp", "mean", "max", "sample_bi", "overall_bi", "si_overall_mean", "si_overall_max", "si_overall_bi")
FORMS += ("si_sample_mean", "si_sample_max", "si_sample_adp", "si_sample_bi")
NAMES = [form + formula for form in FORMS for formula in FORMULAS]
NAMES += [f"{form}auc_{curve}" for form in ("", "si_overall_", "si_sample_") for curve in ("pr", "roc")]
NAMES += ["MAE", "Smeasure", "wFmeasure", "adpFm", "meanFm", "maxFm", "adpEm", "meanEm", "maxEm", "si_mae"]
NAMES += ["adpmsiou", "meanmsiou", "maxmsiou", "sample_bimsiou", "MSIOU", "HCE", "cm"]

AT_ANY_PLACE = {f"{over}max{name}" for over in ("", "si_overall_", "si_sample_") for name in ("ber", "fpr", "rec")}
"""Those that every map reaches at the lowest threshold, where all pixels are found."""


def grey(*shape: int, seed: int = 0) -> GreyImage:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def scores_of(*pairs: tuple[GreyImage, GreyImage], picture: GreyImage | None = None) -> dict[str, float]:
    measures = EveryMeasure()
    for prediction, mask in pairs:
        measures.add(prediction, mask, picture=picture)
    return measures.scores()


@pytest.fixture
def examples(real_data: Path) -> Path:
    folder = real_data / "cod_metrics" / "pysodmetrics_examples"
    if not folder.is_dir():
        pytest.skip("the data folder holds no cod_metrics")
    return folder


@cache
def pairs_of(examples: Path) -> list[tuple[GreyImage, GreyImage]]:
    maps = examples / "test_data" / "preds"
    files = sorted((examples / "test_data" / "masks").iterdir())
    return [(read_grey(maps / path.name).numpy(), read_mask(path).numpy()) for path in files]


@cache
def found_in(examples: Path) -> dict[str, float]:
    return scores_of(*pairs_of(examples))


@cache
def published_in(examples: Path) -> dict[str, float]:
    """Each value from the newest version that lists it: the file names versions from the oldest on."""
    values: dict[str, float] = {}
    for version in json.loads((examples / "version_performance.json").read_text()).values():
        values |= version
    return values


def test_every_published_name_is_measured(examples: Path) -> None:
    assert len(published_in(examples)) == 156
    assert published_in(examples).keys() == {*NAMES, "ccm"}
    assert list(found_in(examples)) == sorted(NAMES)


NO_PICTURES = pytest.mark.skip(reason="ccm is of photographs, which do not lie beside the reference's masks and maps")


@pytest.mark.parametrize("name", [*NAMES, pytest.param("ccm", marks=NO_PICTURES)])
def test_the_published_value(name: str, examples: Path) -> None:
    # 1e-6 is what is promised; the largest difference is 1.2e-16, so that 1e-12 sees any other arithmetic.
    assert found_in(examples)[name] == pytest.approx(published_in(examples)[name], rel=0, abs=1e-12)


def test_a_shifted_map_has_none_of_the_published_values(examples: Path) -> None:
    shifted = scores_of(*((np.roll(prediction, 3, axis=1), mask) for prediction, mask in pairs_of(examples)))
    published = published_in(examples)
    assert {name for name, value in shifted.items() if abs(value - published[name]) < 1e-6} == AT_ANY_PLACE


def shapes(rows: int, columns: int) -> dict[str, GreyImage]:
    empty = np.zeros((rows, columns), np.uint8)
    made = {name: empty.copy() for name in ("no object", "last column", "last pixel", "frame", "diagonal", "dots")}
    made["all object"] = empty + 255
    made["last column"][:, -1] = 255
    made["last pixel"][-1, -1] = 255
    made["frame"][[0, -1]] = made["frame"][:, [0, -1]] = 255  # its box leaves no background
    np.fill_diagonal(made["diagonal"], 255)  # its covariance has no inverse
    made["dots"][::2, ::2] = 255  # more objects than an integer has bits
    return made


@pytest.mark.parametrize("shape", list(shapes(1, 1)))
@pytest.mark.parametrize("size", [(18, 24), (1, 1), (40, 1)])
@pytest.mark.parametrize("value", [0, 255, None])
def test_every_measure_is_a_number_for_any_mask(shape: str, size: tuple[int, int], value: int | None) -> None:
    mask = shapes(*size)[shape]
    prediction = grey(*size) if value is None else np.full(size, value, np.uint8)
    scores = scores_of((prediction, mask), picture=grey(*size, 3))
    assert list(scores) == sorted([*NAMES, "ccm"])
    assert [name for name, score in scores.items() if not math.isfinite(score)] == []


def several_objects() -> tuple[GreyImage, GreyImage]:
    mask = np.zeros((90, 120), np.uint8)
    mask[5:20, 5:30], mask[15:60, 25:70], mask[70:74, 80:84], mask[65:85, 90:110] = 255, 255, 255, 255
    soft = ndimage.gaussian_filter(mask.astype(np.float64), 6) + 0.3 * grey(90, 120)
    return (255 * soft / soft.max()).astype(np.uint8), mask


def test_several_objects_measure_as_the_reference_does() -> None:
    ways = {"sample": {"with_adaptive": True, "with_binary": True}, "overall": {"with_adaptive": False}}
    kinds = {"f1": (FmeasureHandler, {"beta": 1}), "iou": (IOUHandler, {}), "kappa": (KappaHandler, {})}
    kinds |= {"rec": (RecallHandler, {}), "fpr": (FPRHandler, {})}
    handlers = {
        f"{way} {name}": kind(with_dynamic=True, **options, **more, sample_based=way == "sample")
        for way, options in ways.items()
        for name, (kind, more) in kinds.items()
    }
    reference, error, found = SizeInvarianceFmeasureV2(handlers), SizeInvarianceMAE(), EveryMeasure()
    mirrored = tuple(part[:, ::-1].copy() for part in several_objects())
    single = (grey(90, 120), shapes(90, 120)["last column"])
    for prediction, mask in (several_objects(), mirrored, single):
        for measure in (reference, error):
            measure.step(prediction, mask)
        found.add(prediction, mask)
    scores, expected = found.scores(), reference.get_results()
    for name in kinds:
        overall, sample = expected[f"overall {name}"]["dynamic"], expected[f"sample {name}"]
        assert scores[f"si_overall_mean{name}"] == pytest.approx(overall.mean(), abs=1e-12)
        assert scores[f"si_overall_max{name}"] == pytest.approx(overall.max(), abs=1e-12)
        means = [curves.mean(axis=-1).mean() for curves in sample["dynamic"]]
        assert scores[f"si_sample_mean{name}"] == pytest.approx(np.mean(means), abs=1e-12)
        assert scores[f"si_sample_adp{name}"] == pytest.approx(sample["adaptive"], abs=1e-12)
        assert scores[f"si_sample_bi{name}"] == pytest.approx(sample["binary"], abs=1e-12)
    assert scores["si_mae"] == pytest.approx(error.get_results()["si_mae"], abs=1e-12)


def test_edges_and_cells_are_the_reference_s() -> None:
    reference, own = MSIoU(True, True), MultiScaleIoU(True, True)
    for seed, shape in enumerate([(1, 1), (7, 12), (33, 65), (64, 20)]):
        mask = np.random.default_rng(seed).random(shape) < 0.2
        signed = [ndimage.sobel(mask.astype(int), axis=axis, mode="constant") for axis in (0, 1)]
        edge = own.get_edge(mask)
        assert (edge == ((signed[0] != 0) | (signed[1] != 0))).all()
        other = own.get_edge(np.roll(mask, 1, axis=0))
        # Fewer than 2048 pixels: half precision is exact, and the reference's ratios are those of whole numbers.
        expected = reference.multi_scale_iou(other.astype(float), edge.astype(float))
        assert own.multi_scale_iou(other, edge) == pytest.approx(expected, abs=1e-12)


def test_edges_that_half_precision_cannot_count_are_counted() -> None:
    lines = np.zeros((300, 600), bool)
    lines[::3] = True
    own = MultiScaleIoU(False, False)
    assert np.count_nonzero(own.get_edge(lines)) > np.finfo(np.float16).max
    # The next finer grid has 30,000 cells, which half precision still counts, to 11 bits.
    assert own.binarizing(lines, own.get_edge(lines)) == pytest.approx(1, abs=2**-11)


def test_lines_are_simplified_by_the_distance_from_a_line_not_from_its_piece() -> None:
    # OpenCV 4.12 keeps the two ends; 4.13 keeps (168, 131) too, which is beyond the last one.
    path = np.array([[174, 130], [173, 130], [172, 130], [171, 130], [168, 131], [169, 131], [170, 130]])
    assert simplify(path, epsilon=2.0) == [(174, 130), (170, 130)]
    assert simplify(path, epsilon=0.5) == [(174, 130), (168, 131), (170, 130)]
    square = np.array([[0, 0], [4, 0], [8, 0], [8, 8], [0, 8], [0, 0]])
    assert simplify(square, epsilon=1.0) == [(0, 0), (8, 0), (8, 8), (0, 8)]
    assert simplify(square[:1], epsilon=1.0) == [(0, 0)]
    assert simplify(square[[0, 0]], epsilon=1.0) == [(0, 0)]


def test_the_camouflage_degree_weighs_the_context_measure() -> None:
    prediction, mask = several_objects()
    plain = ContextMeasure(beta2=1.2)  # balances as the weighted measure does
    plain.step(prediction, mask)
    black = np.zeros((90, 120, 3), np.uint8)  # every pixel looks like the background, so all weigh the same
    unweighted = plain.get_results()["cm"]
    assert scores_of((prediction, mask), picture=black)["ccm"] == pytest.approx(unweighted, abs=1e-12)
    weighted = CamouflageContextMeasure()
    weighted.step(prediction, mask, img=grey(90, 120, 3))
    found = scores_of((prediction, mask), picture=grey(90, 120, 3))["ccm"]
    assert found == pytest.approx(weighted.get_results()["ccm"], abs=1e-12)
    assert abs(found - unweighted) > 1e-6


def test_the_nine_are_those_of_map_measures() -> None:
    every, nine = EveryMeasure(), MapMeasures()
    for measures in (every, nine):
        measures.add(*several_objects())
    assert every.nine().s_measure == nine.scores().s_measure
    assert every.scores()["wFmeasure"] == nine.scores().f_weighted


def test_what_does_not_fit_is_refused() -> None:
    measures = EveryMeasure()
    with pytest.raises(ValueError, match="at least one map"):
        measures.scores()
    with pytest.raises(ValueError, match="must have one shape"):
        measures.add(grey(4, 4), grey(4, 5))
    with pytest.raises(ValueError, match=r"uint8 with shape \(4, 4, 3\)"):
        measures.add(grey(4, 4), grey(4, 4), picture=grey(4, 4))
    measures.add(grey(4, 4), grey(4, 4))
    measures.add(grey(4, 4), grey(4, 4), picture=grey(4, 4, 3))
    with pytest.raises(ValueError, match="got 1 for 2"):
        measures.scores()
