"""The finished page in a real browser: it loads alone, shows every picture, and fits any screen, light or dark."""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from invattn.experiments.merged.page import write_report


def load_sample() -> ModuleType:
    path = Path(__file__).parents[1] / "unit" / "experiments" / "sample_run.py"
    spec = importlib.util.spec_from_file_location("sample_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = load_sample()
    folder = sample.write_run(tmp_path_factory.mktemp("page") / "run", sample.record("cifar10"), images=12)
    # One cell lacks its artifact, as after an interrupted run.
    (folder / "artifacts" / "dot_product-released.npz").unlink()
    return write_report(folder)


@pytest.fixture
def opened(browser: Any, page: Path, show: Callable[[Path], None]) -> Any:
    resize(browser, 1280)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    show(page)
    return browser


def resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_the_page_loads_alone_and_without_complaint(opened: Any, page: Path) -> None:
    assert opened.title == "Invertible attention: reconstruction of CIFAR-10 32×32"
    assert opened.get_log("browser") == []
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert [entry.name for entry in page.parent.iterdir() if entry.name.startswith("report")] == ["report.html"]


def test_every_picture_is_shown(opened: Any) -> None:
    sizes = opened.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth, i.clientHeight])"
    )
    # certified: 12 x (1 + 4), released: 12 x (1 + 3), both twice; attention: 7 rows of an image and 4 maps
    assert len(sizes) == 2 * 12 * (5 + 4) + 7 * 5
    assert all(
        complete and natural in (16, 32) and wide > 30 and wide == high for complete, natural, wide, high in sizes
    )


def test_every_chart_has_room_and_words(opened: Any) -> None:
    charts = opened.execute_script(
        "return [...document.querySelectorAll('.panel svg')].map(svg => {"
        "  const own = svg.getBoundingClientRect();"
        "  const texts = [...svg.querySelectorAll('text')].map(text => text.getBoundingClientRect());"
        "  const inside = texts.every(t => t.left >= own.left - 1 && t.right <= own.right + 1"
        "    && t.top >= own.top - 1 && t.bottom <= own.bottom + 1);"
        "  return [own.width, own.height, texts.length, inside]; })"
    )
    assert len(charts) == 3 * 2 + 7 + 2
    for width, height, texts, inside in charts:
        assert width > 200
        assert height > 140
        assert texts >= 7
        assert inside


def test_both_tables_of_figures_and_the_words_around_them(opened: Any) -> None:
    rows = opened.execute_script(
        "return [...document.querySelectorAll('table.results tbody tr')].map(r => r.innerText)"
    )
    assert len(rows) == 2 + 8
    assert "84.872" in rows[1]
    assert "2.9×10⁻⁹" in rows[1]
    text = opened.execute_script("return document.body.innerText")
    assert "recovered every one of the 200 test images" in text
    assert text.count("Left out: Dot-product (released)") == 7


@pytest.mark.parametrize("width", [360, 420, 768, 1280, 1920])
def test_nothing_overflows_the_screen(opened: Any, width: int) -> None:
    resize(opened, width)
    found = opened.execute_script(
        "const box = document.querySelector('table.results').parentElement;"
        "return [document.documentElement.scrollWidth, box.scrollWidth, box.clientWidth]"
    )
    assert found[0] <= width
    if width >= 1280:
        assert found[1] <= found[2]


LUMINANCE = """
const numbers = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = colour => { const [r, g, b] = numbers(colour).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const page = light(getComputedStyle(document.body).backgroundColor);
const ratio = value => (Math.max(value, page) + .05) / (Math.min(value, page) + .05);
const words = [...document.querySelectorAll('p, dd, dt, td, th, .keys li, .cell small, h2')]
    .map(e => ratio(light(getComputedStyle(e).color)));
const labels = [...document.querySelectorAll('.panel svg text')].map(e => ratio(light(getComputedStyle(e).fill)));
return [page, Math.min(...words), Math.min(...labels)];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_light_and_in_dark(opened: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    background, words, labels = opened.execute_script(LUMINANCE)
    assert (background > 0.8) if scheme == "light" else (background < 0.05)
    assert words >= 4.5
    assert labels >= 4.5
    shown = opened.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    with Image.open(io.BytesIO(base64.b64decode(shown["data"]))) as picture:
        assert (float(np.asarray(picture.convert("L")).mean()) > 128) == (scheme == "light")


def test_paper_is_white_and_wide_enough(opened: Any) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    resize(opened, 720)
    assert opened.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 720
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF-")
