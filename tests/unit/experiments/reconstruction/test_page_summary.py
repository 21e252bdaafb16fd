"""The sentences at the top of the page say what the figures say, good or bad."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

from invattn.experiments.reconstruction.page.page import headline, tiles
from invattn.experiments.reconstruction.record import ReconstructionRecord


def changed(record: ReconstructionRecord, number: int, **metrics: Any) -> ReconstructionRecord:
    results = list(record.results)
    results[number] = replace(results[number], metrics=replace(results[number].metrics, **metrics))
    return replace(record, results=results)


def test_success_names_the_worst_image_and_the_cost(sample: ModuleType) -> None:
    record = changed(sample.record(recipes=("certified",)), 2, mse_max=7.7e-9, evaluations_mean=9.4, evaluations_max=15)
    (sentence,) = headline(record)
    assert "4 kinds of attention recovered every one of the 200 test images" in sentence
    assert "7.7×10⁻⁹" in sentence
    assert "9.4 evaluations" in sentence
    assert "15 at most" in sentence


def test_one_lost_image_is_not_success(sample: ModuleType) -> None:
    record = changed(sample.record(recipes=("certified",)), 1, v_score=0.995, mse_max=38.0)
    (sentence,) = headline(record)
    assert "did not recover every test image: V-score 99.5% to 100.0%" in sentence
    assert "every one of" not in sentence


def test_images_that_did_not_converge_are_said(sample: ModuleType) -> None:
    record = changed(sample.record(recipes=("certified",)), 0, converged=0.98)
    (sentence,) = headline(record)
    assert "Only 98.0% to 100.0% of the images reached the solver's tolerance" in sentence


def test_a_figure_that_is_no_number_is_not_hidden_by_the_others(sample: ModuleType) -> None:
    record = changed(sample.record(recipes=("certified",)), 3, mse_max=math.nan, v_score=math.nan)
    (sentence,) = headline(record)
    assert "worst image MSE –" in sentence
    assert [value for value, _ in tiles(record)][:2] == ["–", "–"]


def test_other_recipes_stand_beside_the_paper_where_it_has_figures(sample: ModuleType) -> None:
    sentences = headline(sample.record("cifar10", recipes=("released", "paper")))
    rest = "V-score 81.8% to 98.5% (the paper reports 37.8% to 98.4% on this data set)."
    assert sentences == [
        f"Paper recipe, without a certificate, 4 kinds of attention: {rest}",
        f"Released recipe, without a certificate, 4 kinds of attention: {rest}",
    ]
    assert "paper reports" not in headline(sample.record("photos", recipes=("released",)))[0]


def test_a_single_kind_is_named(sample: ModuleType) -> None:
    (sentence,) = headline(sample.record(recipes=("certified",), kinds=("dot_product",)))
    assert "Dot-product attention recovered every one" in sentence


def test_key_figures_are_the_worst_of_the_certified_kinds(sample: ModuleType) -> None:
    record = changed(sample.record(), 2, v_score=0.99, evaluations_max=19)
    values = [value for value, _ in tiles(record)]
    assert values == ["99.0%", "2.9×10⁻⁹", "8.2 / 19", "0.9000"]
    assert tiles(sample.record(recipes=("released",))) == []


def test_an_empty_run_says_so(sample: ModuleType) -> None:
    assert headline(sample.record(recipes=())) == ["This run holds no results."]
