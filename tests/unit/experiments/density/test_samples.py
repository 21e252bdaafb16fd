"""`density sample` for images: what is written, what is counted, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from invattn._errors import DataError
from invattn._files import write_json
from invattn.bijections import initialize
from invattn.cli.main import main
from invattn.experiments.density.config import SampleOptions
from invattn.experiments.density.data import open_images
from invattn.experiments.density.images import load_density_images
from invattn.experiments.density.samples import sample_images
from invattn.experiments.density.stored import read_stored_data
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.progress import SilentProgress
from invattn.hub import ImageFlowConfig, load_flow, save_model
from invattn.solvers import Picard


class Brightness(nn.Module):
    """Two features: mean and spread of all pixels."""

    def forward(self, images: Tensor) -> Tensor:
        values = images.float().flatten(1) / 255
        return torch.stack([values.mean(dim=1), values.std(dim=1)], dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained flow over digits."""
    torch.manual_seed(0)
    config = ImageFlowConfig(image_shape=(1, 8, 8), blocks=(1, 1), hidden_channels=4, attention="dot_product")
    made = config.build()
    data = open_images(
        ImageRequest("digits", data_root=None, image_size=8, train_size=60, test_size=20, seed=0), flips=False
    )
    initialize(made, data.test())
    path = tmp_path_factory.mktemp("model") / "dot_product-certified"
    save_model(made.eval(), path, config=config)
    write_json(path / "data.json", data.describe())
    return path


def options(folder: Path, **changes: object) -> SampleOptions:
    return SampleOptions(**{"model": folder, "count": 6, "temperature": (0.5, 1.0), "output": Path("none"), **changes})  # type: ignore[arg-type]


def test_samples_are_written_with_everything_asked_for(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "features.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Brightness()).save(str(path))
    output = tmp_path / "out"
    arguments = ["density", "sample", str(folder), "--output", str(output), "--count", "6", "--temperature", "0.5,1"]
    assert main([*arguments, "--interpolate", "--nearest", "--fid-features", str(path), "--seed", "4"]) == 0
    names = {entry.name for entry in output.iterdir()}
    wanted = {"samples.npy", "samples.json", "samples.html", "samples_T0.5.png", "samples_T1.png", "artifacts"}
    assert names == wanted
    values = np.load(output / "samples.npy")
    assert values.shape == (2, 6, 1, 8, 8)
    assert np.isfinite(values).all()
    model = load_flow(folder).model
    with torch.no_grad():
        z = [model(torch.from_numpy(part)) for part in values]
    torch.testing.assert_close(z[0], 0.5 * z[1], rtol=1e-3, atol=1e-4)
    summary = json.loads((output / "samples.json").read_text())
    assert (summary["failed"], summary["not_finite"], summary["count"]) == ([0, 0], [0, 0], 6)
    assert len(summary["frechet"]) == 2
    assert summary["data"] == {"name": "digits", "train": 60, "test": 20}
    with np.load(output / "artifacts" / "dot_product-certified.npz") as arrays:
        assert arrays["walk_images"].shape == (8, 11, 8, 8, 3)
        assert arrays["nearest_images"].shape == (6, 3, 8, 8, 3)
        wanted = ImageRequest("digits", data_root=None, train_size=60, test_size=1, image_size=8, seed=0)
        train = load_density_images(wanted).train
        shown = (arrays["nearest_images"][0, 0, ..., 0] * (16.0 / 255)).round()
        assert any(np.array_equal(shown, image[0].numpy()) for image in train), "a training image, to the grey level"


def test_the_same_seed_gives_the_same_samples_and_extras_change_none(folder: Path) -> None:
    first = sample_images(options(folder), SilentProgress())
    second = sample_images(options(folder, nearest=True), SilentProgress())
    assert torch.equal(first.values, second.values)
    assert "data" not in first.summary
    assert not torch.equal(first.values, sample_images(options(folder, seed=1), SilentProgress()).values)


def test_failed_inverses_are_counted(folder: Path, tmp_path: Path) -> None:
    loaded = load_flow(folder)
    one_step = ImageFlowConfig(**{**vars(loaded.config), "solver": Picard(max_steps=1)})
    made = one_step.build()
    made.load_state_dict(loaded.model.state_dict())
    save_model(made.eval(), tmp_path / "model", config=one_step)
    found = sample_images(options(tmp_path / "model"), SilentProgress())
    assert found.summary["failed"] == [6, 6]
    assert found.arrays["sample_failed"].all()
    assert "6 inverses failed" in found.lines()[0]
    assert "max_steps" in found.lines()[0]


def test_other_images_than_those_of_the_training_are_refused(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "model"
    shutil.copytree(folder, changed)
    stored = json.loads((folder / "data.json").read_text())
    write_json(changed / "data.json", stored | {"fingerprint": "0" * 64})
    with pytest.raises(DataError, match="another fingerprint"):
        sample_images(options(changed, nearest=True), SilentProgress())
    assert sample_images(options(changed, nearest=True, data="digits"), SilentProgress()).summary["data"]["train"] == 60
    write_json(changed / "data.json", stored | {"levels": "many"})
    with pytest.raises(DataError, match="whole number as 'levels'"):
        sample_images(options(changed), SilentProgress())
    (changed / "data.json").unlink()
    assert read_stored_data(changed).levels == 256
    with pytest.raises(DataError, match="names its images"):
        sample_images(options(changed, interpolate=True), SilentProgress())


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["density", "sample", *arguments]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("invattn: error:")
    return lines[-1]


def test_wrong_requests_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = [str(folder), "--output", str(tmp_path / "out")]
    assert "each once" in error_of([*ask, "--temperature", "0.7,0.7"], capsys)
    assert "at most 10; got 99" in error_of([*ask, "--temperature", "99"], capsys)
    assert "does not exist" in error_of([*ask, "--fid-features", str(tmp_path / "no.ts")], capsys)
    assert "the flow takes 1 x 8 x 8" in error_of([*ask, "--nearest", "--data", "photos"], capsys)
    assert "config.json does not exist" in error_of([str(tmp_path), "--output", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists(), "nothing is written where nothing was drawn"
