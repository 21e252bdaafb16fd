"""Charts are inline SVG in the page's own colours and leave matplotlib's global state alone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from invattn.experiments.kit.page.charts import Chart, Line, line_chart, log_limits

CHART = Chart(name="test", description="a <chart> & more", x_label="steps", y_label="residual", log_y=True)
LINES = [
    Line(x=np.arange(1, 9), y=0.5 ** np.arange(1, 9), role="gaussian"),
    Line(x=np.arange(1, 9), y=0.7 ** np.arange(1, 9), role="embedded_gaussian", dashed=True),
    Line(x=np.arange(1, 9), y=0.9 ** np.arange(1, 9), role="unheard_of"),
]


def test_global_state_is_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    line_chart(LINES, CHART)
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


def test_a_users_style_does_not_enter() -> None:
    plain = line_chart(LINES, CHART)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red", "font.size": 30.0}):
        assert line_chart(LINES, CHART) == plain


def test_drawing_twice_gives_the_same_text_and_another_name_other_identifiers() -> None:
    first = line_chart(LINES, CHART)
    assert line_chart(LINES, CHART) == first
    other = line_chart(LINES, replace(CHART, name="other"))
    ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_the_svg_is_well_formed_and_takes_its_colours_from_the_page() -> None:
    text = str(line_chart(LINES, CHART))
    root = ElementTree.fromstring(text.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
    assert root.attrib["role"] == "img"
    assert root[0].text == "a <chart> & more"
    assert "#0101" not in text
    for variable in ("--gaussian", "--embedded-gaussian", "--other", "--ink", "--grid"):
        assert f"var({variable})" in text
    assert "metadata" not in text
    assert "font-family" not in text
    assert "10⁻²" in text


def test_references_inside_the_svg_are_defined_there() -> None:
    text = str(line_chart(LINES, replace(CHART, threshold=(4.0, "here"))))
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', text))
    assert used
    assert used <= set(re.findall(r'id="([^"]*)"', text))
    assert "here" in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1e300])
def test_extreme_values_neither_fail_nor_reach_the_drawing(bad: float) -> None:
    y = np.array([1.0, bad, 0.1])
    limits = log_limits([y])
    text = str(line_chart([Line(x=np.arange(3), y=y, role="gaussian")], replace(CHART, y_limits=limits)))
    assert not re.search(r"\b(nan|inf)\b", text)
    largest = max(abs(float(v)) for v in re.findall(r"[ML] -?[\d.]+ (-?[\d.e+]+)", text))
    assert largest < 1000


def test_limits_are_whole_decades_around_the_data() -> None:
    assert log_limits([np.array([3e-7, 0.2]), np.array([np.nan, 0.0])]) == pytest.approx((1e-7, 1.0))
    assert log_limits([np.array([1e-300, 1e300])]) == pytest.approx((1e-17, 1e6))
    assert log_limits([np.array([1.0])]) == pytest.approx((1.0, 10.0))
    assert log_limits([]) == pytest.approx((1.0, 10.0))
    assert log_limits([np.array([np.nan])]) == pytest.approx((0.1, 10.0))


def test_a_single_epoch_is_a_point() -> None:
    text = str(line_chart([Line(x=np.array([1]), y=np.array([1.1]), role="gaussian")], replace(CHART, log_y=False)))
    assert len(re.findall(r"<use [^>]*fill: var\(--gaussian\)|fill: var\(--gaussian\)", text)) >= 1
