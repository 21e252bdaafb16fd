"""All pages rest on one base, and what a template needs and nobody gave is an error."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from invattn import experiments
from invattn.experiments.kit.page.environment import render_page, write_page

ROOT = Path(experiments.__path__[0])
PARTS = {"base.html", "diagrams.html", "glossary.html", "macros.html"}
PAGES = sorted(path for path in ROOT.glob("*/templates/*.html") if path.name not in PARTS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.name))
def test_every_page_extends_the_base_and_has_no_head_of_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    base = "density.html" if path.name.startswith("density_") else "base.html"
    assert text.startswith(f'{{% extends "{base}" %}}')
    assert not any(tag in text for tag in ("<!DOCTYPE", "<head>", "<main>", 'id="run"'))


def test_what_nobody_gave_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render_page("camouflage", "maps.html")


def test_words_of_users_are_escaped() -> None:
    text = render_page("camouflage", "maps.html", sets={"<b>": {"images": 1}}, columns={}, pictures={})
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_a_page_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    page = write_page(tmp_path / "report.html", "first")
    with pytest.raises(OSError, match="nowhere"):
        write_page(tmp_path / "nowhere" / "report.html", "second")
    assert page.read_text(encoding="utf-8") == "first"
