"""The tables of image densities: what they say of the rows, and which cells are measured again."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def cell(row: str, seed: int, shift: float = 0.0, **more: Any) -> dict[str, Any]:
    """A training whose bits vary a lot between images and a little between rows."""
    images = 4 + torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = 0.02 * torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(len(row) + 99 * seed))
    bits = (images + noise + shift).tolist()
    plain = {"row": row, "title": row.upper(), "seed": seed, "bits": bits, "median": 4.0, "outliers": 0}
    return plain | {"inverse_error": 1e-6, "radius": 0.5, "cpu_seconds": 10.0 + seed, "parameters": 12345} | more


def rows(shift: float) -> list[dict[str, Any]]:
    names = {"none-certified": 0.1, "convolution-certified": 0.0, "pointwise-certified": 0.0, "dot-certified": shift}
    return [cell(name, seed, by) for name, by in names.items() for seed in range(3)]


def test_attention_helps_only_where_it_beats_both_controls_by_more_than_a_hundredth(load: Any) -> None:
    table = load("density_markdown").table
    # Standard errors are about 0.02 sqrt(2 / 3 / 400) = 0.0008, so 0.012 is not a hundredth at two of them, 0.013 is.
    assert "two standard errors): DOT-CERTIFIED." in table("celeba16", rows(-0.013))
    for shift in (-0.005, -0.0105, 0.013):
        assert "No kind of attention beats both controls" in table("celeba16", rows(shift))
    worse_than_one = [entry for entry in rows(-0.03) if entry["row"] != "convolution-certified"]
    worse_than_one += [cell("convolution-certified", seed, -0.03) for seed in range(3)]
    assert "No kind of attention beats both controls" in table("celeba16", worse_than_one)


def test_differences_are_paired_by_image(load: Any) -> None:
    text = load("density_markdown").table("celeba16", rows(-0.02))
    (line,) = [line for line in text.splitlines() if line.startswith("| DOT-CERTIFIED | -")]
    value, error = line.split("|")[2].split("+-")
    assert float(value) == pytest.approx(-0.02, abs=0.003)
    assert float(error) < 0.002  # 0.05 where images were not paired


def test_a_refused_likelihood_is_not_printed_but_its_median_and_outliers_are(load: Any) -> None:
    bad = cell("dot_product-released", 0, refused="radius", outliers=7, radius=3.0)
    bad["bits"][3] = None
    bad["median"] = 5.125
    text = load("density_markdown").table("cifar32", [bad | {"references": {"WebP": 4.67}}])
    (line,) = [line for line in text.splitlines() if "DOT_PRODUCT" in line]
    assert line.startswith("| DOT_PRODUCT-RELEASED | refused | - | - | 5.125 | 7 | 1.0e-06 | 3.000 |")
    assert "| *WebP* | 4.670 |" in text


def test_the_files_hold_rounded_bits_and_no_hashes(load: Any, tmp_path: Path) -> None:
    module = load("density_markdown")
    module.write_table("digits", [cell("none-certified", 0) | {"key": "secret"}], folder=tmp_path)
    assert "secret" not in (tmp_path / "digits.json").read_text()
    assert "NONE-CERTIFIED" in (tmp_path / "digits.md").read_text()


class Shift(nn.Module):
    """A peer: a standard normal around a learned mean."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dimensions))

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * ((x - self.mean).square() + math.log(2 * math.pi)).sum(dim=1)

    def round_trip(self, x: Tensor) -> Tensor:
        return x + 0.25

    def after_step(self) -> None:
        pass


def test_a_peer_is_measured_in_the_units_of_the_data(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peers: ModuleType = load("density_peers")
    monkeypatch.setitem(peers.PEERS, "shift", Shift)
    data = 4 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1)) + 3
    found = peers.train_and_measure("shift", lambda step: data[:50], data, data, seconds=0.02, seed=0)
    # The entropy of a normal distribution; 4,000 samples know it to 0.016, and the mean has moved a little.
    entropy = 2 * math.log(4 * math.sqrt(2 * math.pi * math.e))
    assert float(found.nats.mean()) == pytest.approx(entropy, abs=0.08)
    assert found.inverse_error == pytest.approx(0.25 * 4, rel=0.1)  # in units of the data, not of what is learned
    assert found.steps >= 1


def test_a_cell_is_measured_once_and_again_for_other_options(load: Any, tmp_path: Path) -> None:
    cells = load("density_cells")
    count = []

    def measure() -> dict[str, Any]:
        count.append(1)
        return {"bits": [1.0, 2.0]}

    for seed in (0, 0, 1):
        config = cells.density_config({"data": "digits", "output": tmp_path, "seed": seed})
        cells._kept(tmp_path / "cell.json", config, "row", "Row", measure)
    assert len(count) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normflows-spline", "nflows-maf", "normflows-residual", "freia-all-in-one"])
def test_peers_invert_and_have_densities(load: Any, name: str) -> None:
    pytest.importorskip({"n": "nflows", "f": "FrEIA"}[name[0]] if "normflows" not in name else "normflows")
    torch.manual_seed(0)
    peer = load("density_peers").PEERS[name](6).eval()
    x = torch.randn(5, 6)
    with torch.no_grad():
        assert float((peer.round_trip(x) - x).abs().max()) < 1e-2
        assert peer.log_prob(x).shape == (5,)
