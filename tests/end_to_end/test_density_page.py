"""The page of a density run over images in a real browser: it loads alone, shows every picture, and fits any screen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from invattn.experiments.merged.page import write_report


def load_sample() -> ModuleType:
    path = Path(__file__).parents[1] / "unit" / "experiments" / "sample_density.py"
    spec = importlib.util.spec_from_file_location("sample_density", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = load_sample()
    values = {"none": 4.9, "dot_product": 4.92, "concatenation": 4.93, "pointwise": 4.87}
    results = [sample.result(attention, value) for attention, value in values.items()]
    refused = sample.result("dot_product", None, recipe="released", refused="a radius reaches 1.3", certificate=None)
    return write_report(sample.write_run(tmp_path_factory.mktemp("page") / "run", sample.record(*results, refused)))


@pytest.fixture
def opened(browser: Any, page: Path, show: Callable[[Path], None]) -> Any:
    show(page)
    return browser


def resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_it_loads_alone_and_shows_every_picture(opened: Any) -> None:
    resize(opened, 1280)
    assert opened.get_log("browser") == []
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    shown = opened.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    # Grids of the data and of five variants at two temperatures; walks, samples with neighbours, and fields.
    assert len(shown) == 1 + 5 * 2 + 5 * (2 * 5 + 3 * 2) + 3 * 3 + 2 * 2
    assert all(complete and natural > 0 and wide > 30 for complete, natural, wide in shown)


def test_links_of_the_contents_lead_somewhere(opened: Any) -> None:
    missing = opened.execute_script(
        "return [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"
        ".filter(href => document.querySelector(href) === null)"
    )
    assert missing == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_overflows_the_screen(opened: Any, width: int) -> None:
    resize(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    inside = opened.execute_script(
        "return [...document.querySelectorAll('.panel svg')].every(svg => {"
        "  const own = svg.getBoundingClientRect();"
        "  return [...svg.querySelectorAll('text')].map(text => text.getBoundingClientRect())"
        "    .every(t => t.left >= own.left - 1 && t.right <= own.right + 1 && t.bottom <= own.bottom + 1); })"
    )
    assert inside, "every word of a chart lies within it"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_stand_out_in_light_and_in_dark(opened: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    ratios = opened.execute_script(
        "const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number)"
        "  .map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);"
        "  return .2126 * r + .7152 * g + .0722 * b; };"
        "const page = light(getComputedStyle(document.body).backgroundColor);"
        "return [...document.querySelectorAll('#blocks .keys i')].map(e => light(getComputedStyle(e).borderTopColor))"
        "  .map(v => (Math.max(v, page) + .05) / (Math.min(v, page) + .05));"
    )
    # Dot-product, concatenation, convolution; 3 is what WCAG asks of graphics.
    assert len(ratios) >= 3
    assert min(ratios) >= 3
