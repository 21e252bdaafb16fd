"""The page is complete, self-contained and honest about what is missing."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from invattn._errors import DataError
from invattn._files import write_json
from invattn.experiments.merged.page import write_report

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Collects identifiers, addresses and text of a page, and checks that its tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        self.addresses += [str(values[key]) for key in ("src", "href", "xlink:href", "srcset", "data") if key in values]
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(folder: Path) -> Outline:
    return Outline(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory, sample: ModuleType) -> Outline:
    folder = tmp_path_factory.mktemp("cifar") / "run"
    return page(sample.write_run(folder, sample.record("cifar10"), images=3))


def test_tags_nest_and_identifiers_are_unique(cifar: Outline) -> None:
    assert len(cifar.ids) == len(set(cifar.ids))
    inside = {address[1:] for address in cifar.addresses if address.startswith("#")}
    assert inside <= set(cifar.ids)
    assert {"table", "reconstructions", "errors", "residuals", "constants", "attention", "training"} <= set(cifar.ids)


def test_nothing_is_fetched_from_elsewhere(cifar: Outline) -> None:
    assert all(address.startswith(("#", "data:")) for address in cifar.addresses)
    assert not {"script", "iframe", "object", "embed"} & set(cifar.tags)


def test_every_picture_has_words(cifar: Outline) -> None:
    assert cifar.images
    assert all(image.get("alt") for image in cifar.images)


def test_the_number_of_pictures_and_charts(cifar: Outline) -> None:
    # two recipes: (original + 4 kinds) x 3 images, twice (images, errors); attention: 4 kinds x (image + 4 queries)
    assert len(cifar.images) == 2 * (2 * 5 * 3) + 2 * 4 * 5
    # one chart for each recipe in three parts, one for each pair in a fourth, and two diagrams
    assert cifar.tags.count("svg") == 3 * 2 + 8 + 2


def test_ours_stands_beside_the_papers(cifar: Outline) -> None:
    for figure in ("84.872", "85.625%", "169.032", "0.706", "98.437%"):
        assert figure in cifar.text
    for figure in ("2.9×10⁻⁹", "0.9000 (∞,2)", "8.2 / 11", "96.400%"):
        assert figure in cifar.text
    assert "Results beside the paper's" in cifar.text
    assert "for context only" not in cifar.text
    assert "3 recovered pixel values were not finite" in cifar.text


def test_photographs_show_the_papers_table_as_context_only(tmp_path: Path, sample: ModuleType) -> None:
    found = page(sample.write_run(tmp_path / "run", sample.record("photos", recipes=("certified",)), images=2))
    assert "The paper reports nothing on these images" in found.text
    assert "Table 2, for context only" in found.text
    assert "508.016" in found.text
    assert "not to be compared number by number" in found.text


def test_large_photographs_show_table_5(tmp_path: Path, sample: ModuleType) -> None:
    run = sample.record("photos", recipes=("certified",), kinds=("gaussian",), image_size="original")
    found = page(sample.write_run(tmp_path / "run", run, height=66, width=70, images=7))
    assert "Table 5, for context only" in found.text
    assert "1.555×10⁻⁶" in found.text
    assert "original size" in found.text
    assert len(found.images) == 2 * 2 * 5 + 5


def test_settings_versions_and_notes_are_there(cifar: Outline) -> None:
    for words in (
        "invattn reconstruct --data cifar10",
        "2.13.0",
        "batch_size",
        "9f86d081884c",
        "different photographs",
    ):
        assert words in cifar.text


def test_a_training_that_broke_off_is_said(tmp_path: Path, sample: ModuleType) -> None:
    run = sample.record(recipes=("unconstrained",), kinds=("dot_product",))
    result = replace(run.results[0], extra={"stopped_at": [None, 17, None]})
    write_json(tmp_path / "results.json", replace(run, results=[result]).to_json())
    words = "Dot-product, unconstrained, repeat 2: the training loss was not finite at step 17"
    assert words in page(tmp_path).text


def test_text_of_the_record_is_escaped(tmp_path: Path, sample: ModuleType) -> None:
    run = sample.record("photos", recipes=("certified",), kinds=("gaussian",))
    data = {**run.data, "notes": ["<script>alert(1)</script>"], "name": "<b>x"}
    folder = sample.write_run(tmp_path / "run", replace(run, data=data, command="a < b && c > d"), images=1)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "a &lt; b &amp;&amp; c &gt; d" in text


PARTS = {
    "reconstructions": ("originals", "reconstructions", "image_mse"),
    "errors": ("originals", "errors"),
    "distribution": ("all_mse",),
    "residuals": ("residual_steps", "residual_median", "residual_max"),
    "constants": ("curve_c", "curve_steps", "curve_error"),
    "attention": ("attention_image", "attention_query", "attention_maps"),
    "training": ("losses",),
}


def section(text: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">.*?</section>', text, flags=re.DOTALL)
    assert found is not None
    return found.group()


@pytest.mark.parametrize("array", [*(names[-1] for names in PARTS.values()), "originals"])
def test_a_missing_array_leaves_out_its_parts_and_only_them(tmp_path: Path, sample: ModuleType, array: str) -> None:
    folder = sample.write_run(tmp_path / "run", sample.record(recipes=("certified",), kinds=("gaussian",)), images=1)
    path = folder / "artifacts" / "gaussian-certified.npz"
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files if name != array}
    np.savez(path, **kept)
    text = write_report(folder).read_text(encoding="utf-8")
    for anchor, names in PARTS.items():
        part = section(text, anchor)
        drawn = "<svg" in part or "<img" in part
        assert drawn == (array not in names)
        assert ("Left out: Gaussian (certified), because the run stored no" in part) == (not drawn)
    Outline(text)


def test_arrays_that_do_not_fit_together_are_left_out(tmp_path: Path, sample: ModuleType) -> None:
    run = sample.record(recipes=("certified",), kinds=("gaussian",))
    folder = sample.write_run(tmp_path / "run", run, images=2)
    arrays = sample.artifact("gaussian", "certified", images=2)
    arrays |= {
        "image_mse": np.ones(5),
        "errors": np.ones((2, 3, 3), np.float32),
        "residual_max": np.ones(3),
        "curve_error": np.ones((4, 3)),
        "attention_query": np.array([[99, 0]] * 4),
    }
    np.savez(folder / "artifacts" / "gaussian-certified.npz", **arrays)
    text = write_report(folder).read_text(encoding="utf-8")
    for anchor in ("reconstructions", "errors", "residuals", "constants"):
        assert "do not fit together" in section(text, anchor)
    assert "lie outside the image" in section(text, "attention")


def test_without_any_artifact_the_tables_remain(tmp_path: Path, sample: ModuleType) -> None:
    write_json(tmp_path / "results.json", sample.record("cifar10").to_json())
    found = page(tmp_path)
    assert "84.872" in found.text
    assert found.images == []
    assert found.text.count("the run stored no arrays for figures") == len(PARTS)


def test_an_empty_run_and_figures_that_are_no_numbers_are_shown(tmp_path: Path, sample: ModuleType) -> None:
    write_json(tmp_path / "results.json", sample.record(recipes=()).to_json())
    assert "This run holds no results" in page(tmp_path).text
    value = sample.record("cifar10").to_json()
    for entry in value["results"]:
        entry["metrics"] = dict.fromkeys(entry["metrics"]) | {"non_finite": 7}
    write_json(tmp_path / "results.json", value)
    assert "7 recovered pixel values were not finite" in page(tmp_path).text


def test_arrays_full_of_nan_are_drawn_without_a_warning(tmp_path: Path, sample: ModuleType) -> None:
    folder = sample.write_run(tmp_path / "run", sample.record(recipes=("paper",), kinds=("gaussian",)), images=2)
    arrays = sample.artifact("gaussian", "paper", images=2)
    for name, value in arrays.items():
        if value.dtype.kind == "f":
            arrays[name] = np.full_like(value, np.nan)
    np.savez(folder / "artifacts" / "gaussian-paper.npz", **arrays)
    text = page(folder).text
    assert "not finite" in text


def test_different_test_images_get_their_own_originals(tmp_path: Path, sample: ModuleType) -> None:
    folder = sample.write_run(tmp_path / "run", sample.record(recipes=("certified",)), images=2)
    arrays = sample.artifact("gaussian", "certified", images=2)
    arrays["originals"] = arrays["originals"][::-1]
    np.savez(folder / "artifacts" / "gaussian-certified.npz", **arrays)
    part = section(write_report(folder).read_text(encoding="utf-8"), "reconstructions")
    assert part.count(">Original<") == 2


def test_all_repeats_of_the_record_are_drawn(tmp_path: Path, sample: ModuleType) -> None:
    run = sample.record(recipes=("certified",), kinds=("gaussian",))
    losses = [[1.3, 1.2, 1.1], [1.4, 1.2, 1.0]]
    run = replace(run, results=[replace(run.results[0], train_loss=losses)])
    folder = sample.write_run(tmp_path / "run", run, images=1)
    part = section(write_report(folder).read_text(encoding="utf-8"), "training")
    assert len(re.findall(r"<path [^>]*stroke: var\(--gaussian\)", part)) == 2


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"schema_version": 1}', b'{"schema_version": 99}'])
def test_a_folder_without_a_good_record_is_one_line_and_writes_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_missing_folder_and_a_file_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DataError, match="is no folder"):
            write_report(path)


def test_a_failed_write_keeps_the_older_page(
    tmp_path: Path, sample: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "results.json", sample.record().to_json())
    (tmp_path / "report.html").write_bytes(b"older")

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == b"older"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.html", "results.json"]


def test_the_same_run_gives_the_same_page(tmp_path: Path, sample: ModuleType) -> None:
    folder = sample.write_run(tmp_path / "run", sample.record(recipes=("certified",), kinds=("gaussian",)), images=1)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
