"""Numbers read as they should, and rounding never flatters."""

from __future__ import annotations

import math

import pytest

from invattn.experiments.kit.page import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (84.872, "84.872"),
        (0.003, "0.003"),
        (1.555e-6, "1.555×10⁻⁶"),
        (2.9e-10, "2.9×10⁻¹⁰"),
        (0.0, "0"),
        (5122.4, "5,122"),
        (0.00289, "0.00289"),
        (0.321, "0.321"),
        (508.016, "508.016"),
        (3.2e9, "3.2×10⁹"),
        (math.nan, "–"),
        (math.inf, "–"),
        (None, "–"),
    ],
)
def test_error(value: float | None, text: str) -> None:
    assert formatting.error(value) == text


def test_error_in_plain_text() -> None:
    assert formatting.error(1.555e-6, plain=True) == "1.555e-6"
    assert formatting.error(3.14159e-9, digits=1, plain=True) == "3.1e-9"


@pytest.mark.parametrize("value", [0.00289, 0.0104, 0.0999, 0.23, 1e-3, 7e-4, 3e-12])
def test_an_error_that_is_not_zero_never_reads_as_zero(value: float) -> None:
    assert float(formatting.error(value, digits=2, plain=True)) == pytest.approx(value, rel=0.05)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "100.000%"),
        (0.9999999, "99.999%"),
        (1 - 1e-12, "99.999%"),
        (0.29, "29.000%"),
        (0.85625, "85.625%"),
        (0.99995, "99.995%"),
        (0.37812, "37.812%"),
        (0.0, "0.000%"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_only_a_share_of_one_reads_100_per_cent(value: float | None, text: str) -> None:
    assert formatting.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9, "0.9000"), (0.90001, "0.9001"), (0.8999999, "0.9000"), (0.99999, "0.999990"), (1.25, "1.2500"), (None, "–")],
)
def test_a_bound_is_rounded_up_but_never_to_one(value: float | None, text: str) -> None:
    assert formatting.bound(value) == text


@pytest.mark.parametrize("value", [0.5, 0.89999, 0.900049, 0.99995, 0.9999999, 1 - 1e-14, 1 - 2**-53])
def test_a_printed_bound_still_bounds(value: float) -> None:
    printed = float(formatting.bound(value))
    assert value - 1e-9 <= printed < 1.0


def test_other_numbers() -> None:
    assert formatting.decimals(0.98765) == "0.988"
    assert formatting.mean_and_most(8.24, 11) == "8.2 / 11"
    assert formatting.mean_and_most(math.nan, None) == "– / –"
    assert formatting.count(12345) == "12,345"
    assert [formatting.duration(s) for s in (0.84, 119.0, 150.0, 9000.0, None)] == [
        "0.8 s", "119.0 s", "2.5 min", "2.5 h", "–",
    ]  # fmt: skip
    assert [formatting.power_of_ten(n) for n in (-12, 0, 1, 10)] == ["10⁻¹²", "1", "10¹", "10¹⁰"]


def test_known_names_come_first_and_in_order() -> None:
    names = ["mine", "concatenation", "gaussian", "mine"]
    assert formatting.in_order(names, formatting.KINDS) == ["gaussian", "concatenation", "mine"]


def test_unknown_names_stand_as_they_are() -> None:
    assert formatting.kind("mine") == "mine"
    assert formatting.recipe("released-c0.5") == "released-c0.5"
    assert [formatting.size(s) for s in (32, "32", "218x178", "original")] == [
        "32×32",
        "32×32",
        "218×178",
        "original size",
    ]
