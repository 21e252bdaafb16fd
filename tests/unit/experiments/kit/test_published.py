"""The published figures are the paper's, to the last digit: sums worked out apart from the files, and checksums."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest

from invattn.experiments.kit.record import published_reconstruction, published_rows

SHA256 = {
    "table2": "eaf3f7abf45fcb746bdb45708b1feae0c074ecb02680255c2b429f3aa61637d1",
    "table3": "bc86f8e79ee50dfb51f159439e39b0e33052e70bb57edb21870e974c99f0a031",
    "table4": "d54797bb73b98df149ffc9ed0f49b4147b75469e8d04ad12ea6e4feed06ee833",
    "table5": "85799cc7ab66a408c5e7aead29640c6cca23c04839a8e6ff9dc7a003cb02d854",
}


@pytest.mark.parametrize("name", sorted(SHA256))
def test_checksum(name: str) -> None:
    text = resources.files("invattn.experiments.kit").joinpath("published", f"{name}.csv").read_text(encoding="utf-8")
    assert hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest() == SHA256[name]


@pytest.mark.parametrize(
    ("attention", "dataset", "figures"),
    [
        ("gaussian", "cifar10", (84.872, 0.988, 0.85625)),
        ("gaussian", "svhn", (0.321, 0.999, 0.99995)),
        ("gaussian", "celeba", (55.236, 0.992, 0.86979)),
        ("embedded_gaussian", "cifar10", (6.911, 0.999, 0.98333)),
        ("embedded_gaussian", "svhn", (0.003, 0.999, 1.0)),
        ("embedded_gaussian", "celeba", (29.026, 0.996, 0.93958)),
        ("dot_product", "cifar10", (169.032, 0.977, 0.37812)),
        ("dot_product", "svhn", (508.016, 0.892, 0.44583)),
        ("dot_product", "celeba", (461.488, 0.936, 0.37812)),
        ("concatenation", "cifar10", (0.706, 0.999, 0.98437)),
        ("concatenation", "svhn", (171.755, 0.994, 0.975)),
        ("concatenation", "celeba", (5.064, 0.998, 0.88021)),
    ],
)
def test_table_2(attention: str, dataset: str, figures: tuple[float, float, float]) -> None:
    found = published_reconstruction(dataset, 32)[attention]
    assert found == dict(zip(("mse", "ssim", "v_score"), figures, strict=True))


@pytest.mark.parametrize("size", ["original", "218x178"])
def test_table_5(size: str) -> None:
    assert published_reconstruction("celeba", size) == {
        "gaussian": {"mse": 64.975, "ssim": 0.991, "v_score": 0.87},
        "embedded_gaussian": {"mse": 27.506, "ssim": 0.994, "v_score": 0.939},
        "dot_product": {"mse": 251.231, "ssim": 0.976, "v_score": 0.941},
        "concatenation": {"mse": 1.555e-6, "ssim": 1.0, "v_score": 1.0},
        "pointwise": None,
    }


def test_table_3() -> None:
    rows = {row["model"]: float(row["bits_per_dim"]) for row in published_rows("table3")}
    assert list(rows.values()) == [5.67, 4.31, 3.49, 3.35, 3.40, 3.45, 3.65, 3.39]
    assert list(rows)[:6] == ["MADE", "MAF", "RealNVP", "Glow", "FFJORD", "i-ResNet"]


def test_v_scores_of_table_2_are_shares_of_960_but_one() -> None:
    odd = [
        row["v_score"]
        for row in published_rows("table2")
        if abs(float(row["v_score"]) * 960 - round(float(row["v_score"]) * 960)) > 0.01
    ]
    assert odd == ["0.99995"]


@pytest.mark.parametrize(
    ("dataset", "size"),
    [("photos", 32), ("cifar10", "original"), ("svhn", "218x178"), ("cifar10", 64), ("../cifar10", 32)],
)
def test_nothing_was_published_for_others(dataset: str, size: int | str) -> None:
    assert set(published_reconstruction(dataset, size).values()) == {None}


@pytest.mark.parametrize("size", [32, "32", "32x32"])
def test_the_size_may_be_given_in_three_ways(size: int | str) -> None:
    assert published_reconstruction("svhn", size)["concatenation"] == {"mse": 171.755, "ssim": 0.994, "v_score": 0.975}
