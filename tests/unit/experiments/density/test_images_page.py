"""The page of a density run over images: tables, grids, blocks, fields, and what it says of the published figures."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from invattn._errors import DataError
from invattn._files import write_json
from invattn.experiments.density.page.headline import headline, stored_likelihoods
from invattn.experiments.density.page.samples import write_sample_page
from invattn.experiments.density.page.tables import comparison_note, measure_of, published_table
from invattn.experiments.kit.page.charts import common_limits
from invattn.experiments.merged.page import write_report


def words(text: str) -> str:
    """The text of a page without its tags, in one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


@pytest.fixture
def page(density: ModuleType, tmp_path: Path) -> str:
    results = [density.result("dot_product", 4.92), density.result("none", 4.9), density.result("pointwise", 4.87)]
    refused = density.result("concatenation", None, recipe="released", refused="its radius reaches 1.3")
    folder = density.write_run(tmp_path, density.record(*results, replace(refused, certificate=None)))
    (folder / "artifacts" / "concatenation-released.npz").unlink()
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_has_every_part(page: str) -> None:
    text = words(page)
    for heading in ("Beside the published table", "Samples", "What each block does", "Receptive field", "Training"):
        assert heading in text
    assert "5.038" in text, "the Gaussian"
    assert "Concatenation, released: no likelihood, because its radius reaches 1.3." in text
    assert text.count("Left out: Concatenation (released)") == 6, (
        "samples, temperatures, walks, nearest, blocks, fields"
    )
    # Data and three variants, each of those at one further temperature.
    assert page.count('class="sheet"') == 1 + 3 + 3
    assert page.count("<svg") == 3 * 3 + 1, "log-det, left out, size; training"
    assert "1 of 4 inverses failed" in text
    assert "25 places" not in text
    assert "add a standard error of at most 0.0003 to the mean" in text
    assert "must not be compared" in text
    assert not re.search(r'(?:src|href)="https?:', page)


def test_variants_stand_in_the_order_of_the_figure(page: str) -> None:
    titles = re.findall(r"<figcaption>([^<]*)</figcaption>", page)
    assert titles[:4] == [
        "Data: test images",
        "No attention (control, certified)",
        "Dot-product (certified): 1 of 4 inverses failed (red)",
        "Pointwise (control, certified)",
    ]


def test_the_unit_is_that_of_the_results(density: ModuleType) -> None:
    measure = measure_of(density.record(density.result("none", 4.9)))
    assert (measure.word, measure.long, measure.factor) == ("bits", "bits per dimension", pytest.approx(1 / np.log(2)))


def test_ours_stand_beside_the_published_models_that_they_are(density: ModuleType) -> None:
    seeds = [density.result("dot_product", value, seed=seed) for seed, value in enumerate((4.9, 5.0))]
    refused = density.result("dot_product", None, recipe="released")
    rows = {row.label: row for row in published_table(density.record(*seeds, refused, density.result("none", 4.5)))}
    assert (rows["i-ResNet"].published, rows["i-ResNet"].ours) == ("3.45", "4.500")
    dot = rows["i-ResNet + Dot-product attention"]
    assert (dot.published, dot.ours, dot.kind) == ("3.65", "4.950", "dot_product")
    assert (rows["MADE"].published, rows["MADE"].ours) == ("5.67", "")
    assert (rows["Dot-product, released"].published, rows["Dot-product, released"].ours) == ("", "refused")
    assert rows["i-ResNet + Concatenation attention"].ours == ""


def test_only_the_whole_of_cifar10_may_be_compared(density: ModuleType) -> None:
    own = density.record(density.result("none", 3.5), name="cifar10", side=32, train=50_000)
    assert comparison_note(own).startswith("Both are of CIFAR-10")
    fewer = density.record(density.result("none", 3.5), name="cifar10", side=32, train=7_319)
    assert "7,319 training images" in comparison_note(fewer)
    assert "must not be compared" in comparison_note(fewer)
    small = density.record(density.result("none", 3.5), name="cifar10", side=16, train=50_000)
    assert "16×16" in comparison_note(small)


def test_the_headline_compares_seed_by_seed_and_asks_for_both_controls(density: ModuleType) -> None:
    def sentence(pointwise: float, convolution: float) -> str:
        runs = [density.result("gaussian", 4.8, seed=0), density.result("gaussian", 4.9, seed=1)]
        controls = [density.result("pointwise", pointwise, seed=1), density.result("convolution", convolution, seed=1)]
        return headline(density.record(*runs, *controls))[0]

    text = sentence(4.95, 4.97)
    assert text.startswith("Gaussian, certified: 4.850 bits per dimension (mean of 2 seeds)")
    assert "-0.050 against the control P = I" in text
    assert "-0.070 against one more convolution" in text
    assert "beats both controls by more than 0.01" in text
    assert "does not beat both controls" in sentence(4.905, 4.97)
    assert "does not beat both controls" in sentence(4.95, 4.89)
    alone = headline(density.record(density.result("gaussian", 4.8), density.result("pointwise", 4.9)))[0]
    assert "control" in alone
    assert "both" not in alone


def test_differences_have_paired_standard_errors(density: ModuleType, tmp_path: Path) -> None:
    """Images differ by 1 bit, the two flows by 0.02 +- 0.04 of it on each."""
    generator = np.random.default_rng(0)
    easy, gain = generator.normal(size=400), generator.normal(-0.02, 0.04, size=400)
    nats = {"gaussian": easy + gain, "pointwise": easy, "convolution": easy}
    (tmp_path / "artifacts").mkdir()
    for kind, values in nats.items():
        np.savez(tmp_path / "artifacts" / f"{kind}-certified.npz", nats=values / np.log2(np.e))
    means = {kind: 4.9 + float(values.mean()) for kind, values in nats.items()}
    results = [density.result(kind, mean) for kind, mean in means.items()]
    text = headline(density.record(*results), stored_likelihoods(tmp_path))[0]
    error = gain.std(ddof=1) / 20
    assert f"{gain.mean():+.3f} ± {error:.3f} against the control P = I" in text
    assert "beats both controls" in text
    (tmp_path / "artifacts" / "convolution-certified.npz").unlink()
    text = headline(density.record(*results), stored_likelihoods(tmp_path))[0]
    assert f"{gain.mean():+.3f} against one more convolution" in text
    noisy = {"nats": easy + generator.normal(0, 1, size=400)}
    np.savez(tmp_path / "artifacts" / "pointwise-certified.npz", **noisy)
    assert "does not beat" in headline(density.record(*results), stored_likelihoods(tmp_path))[0]


def test_a_refusal_is_said_once(density: ModuleType) -> None:
    refused = density.result("gaussian", None, recipe="released", refused="its radius reaches 1.3")
    sentence = "Gaussian, released: no likelihood, because its radius reaches 1.3."
    assert headline(density.record(refused, density.result("none", 4.9))) == [sentence]


def test_attention_is_compared_with_controls_of_its_recipe(density: ModuleType) -> None:
    results = [
        density.result("gaussian", 4.8, recipe="paper"),
        density.result("pointwise", 4.7, recipe="paper"),
        density.result("pointwise", 4.9),
        density.result("none", 4.85),
    ]
    text = headline(density.record(*results))[0]
    assert "+0.100 against the control P = I" in text
    assert "-0.050 against no such block" in text


def test_damaged_and_foreign_arrays_are_left_out_with_the_reason(density: ModuleType, tmp_path: Path) -> None:
    folder = density.write_run(tmp_path, density.record(density.result("dot_product", 4.9)))
    path = folder / "artifacts" / "dot_product-certified.npz"
    whole = density.arrays("dot_product")
    changes = {
        "sample_failed": np.zeros((2, 3)),
        "block_size": np.zeros(1),
        "field_names": np.array(["one", "two", "three"]),
        "walk_images": whole["walk_images"].astype(float),
    }
    np.savez(path, **{**whole, **changes})
    text = words(write_report(folder).read_text(encoding="utf-8"))
    assert text.count("the stored arrays do not fit together") == 3, "samples, temperatures, blocks"
    assert "receptive fields are not those" in text
    assert "has an unexpected shape or type" in text
    np.savez(path, **{name: value for name, value in whole.items() if not name.startswith("block")})
    assert "no figures of single blocks" in write_report(folder).read_text(encoding="utf-8")


def test_axes_hold_bars_and_zero() -> None:
    low, high = common_limits([np.array([0.1, np.nan]), np.array([-0.2])])
    assert low < -0.2
    assert high > 0.1
    assert common_limits([np.array([0.5])])[0] == 0.0
    assert common_limits([np.array([np.nan])]) == (0.0, pytest.approx(0.0, abs=1e-6))


SUMMARY = {
    "model": "dot_product-certified",
    "attention": "dot_product",
    "recipe": "certified",
    "seed": 3,
    "count": 4,
    "temperatures": [0.7, 1.0],
    "failed": [0, 1],
    "not_finite": [0, 1],
    "failures": ["", "1 diverged"],
}


def test_the_sample_page_counts_failures(density: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    np.savez(tmp_path / "artifacts" / "dot_product-certified.npz", **density.arrays("dot_product"))
    data = {"name": "celeba", "train": 2000, "test": 64}
    write_json(tmp_path / "samples.json", SUMMARY | {"frechet": [1.25, 2.5], "data": data})
    page = write_sample_page(tmp_path).read_text(encoding="utf-8")
    text = words(page)
    assert "1 of 8 inverses did not reach their tolerance, 1 samples are not finite." in text
    assert "1 (1 diverged)" in text
    assert "2.5" in text
    assert "2000 training images of CelebA" in text
    assert (tmp_path / "samples_T0.7.png").exists()
    assert (tmp_path / "samples_T1.png").exists()
    shown = re.findall(r'class="sheet" src="data:image/png;base64,([^"]+)"', page)
    assert len(shown) == 2
    with Image.open(io.BytesIO(base64.b64decode(shown[1]))) as image:
        assert (np.asarray(image)[..., :3] == (179, 38, 30)).all(axis=-1).any(), "the failed one has its frame"


def test_a_sample_page_without_extras_or_samples(density: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    kept = {name: value for name, value in density.arrays("dot_product").items() if name.startswith("sample")}
    np.savez(tmp_path / "artifacts" / "dot_product-certified.npz", **kept)
    write_json(tmp_path / "samples.json", SUMMARY | {"failed": [0, 0], "not_finite": [0, 0]})
    text = words(write_sample_page(tmp_path).read_text(encoding="utf-8"))
    assert "All 8 inverses reached their tolerance, and every sample is finite." in text
    assert "Nearest" not in text
    (tmp_path / "artifacts" / "dot_product-certified.npz").unlink()
    with pytest.raises(DataError, match="no samples that can be shown"):
        write_sample_page(tmp_path)
    write_json(tmp_path / "samples.json", {"model": "x"})
    with pytest.raises(DataError, match="does not describe samples"):
        write_sample_page(tmp_path)
