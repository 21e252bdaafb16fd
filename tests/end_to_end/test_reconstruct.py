"""The reconstruction experiment on real images, through the library: small, but nothing replaced by a stand-in."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invattn import DataError
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.reconstruction.record import ReconstructionRecord
from invattn.experiments.reconstruction.run import ReconstructionConfig, run
from invattn.hub import load_model


def make(output: Path, **options: Any) -> ReconstructionConfig:
    usual = {"train_size": 64, "test_size": 16, "epochs": 2, "repeats": 1, "batch_size": 32}
    return ReconstructionConfig(output=output, **{**usual, **options})


def test_certified_attention_inverts_photographs_and_the_released_form_is_reported(tmp_path: Path) -> None:
    config = make(tmp_path, attention="concatenation", recipe="certified,released")
    record = run(config, SilentProgress())
    assert ReconstructionRecord.read(tmp_path / "results.json").to_json() == record.to_json()
    certified, released = record.results
    assert (certified.recipe, released.recipe) == ("certified", "released")
    assert (certified.metrics.v_score, certified.metrics.converged, certified.metrics.non_finite) == (1.0, 1.0, 0)
    assert certified.metrics.mse_max <= 1e-8
    assert certified.metrics.evaluations_max <= 16
    assert certified.certificate is not None
    assert 0.5 < certified.certificate["bound"] <= 0.9
    assert released.certificate is None
    assert released.metrics.evaluations_max == 51
    assert np.isfinite(released.metrics.mse)
    with np.load(tmp_path / "artifacts" / "concatenation-certified.npz") as arrays:
        assert arrays["originals"].shape == (8, 32, 32, 3)
        assert np.array_equal(arrays["originals"], arrays["reconstructions"])
        assert arrays["attention_maps"].shape == (4, 16, 16)
        assert np.allclose(arrays["attention_maps"].sum(axis=(1, 2)), 1.0, atol=1e-5)
    loaded = load_model(tmp_path / "model" / "concatenation-certified")
    image = torch.rand(1, 3, 32, 32) - 0.5
    assert (loaded.model.inverse(loaded.model(image)) - image).abs().max() < 1e-5


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    options = {"train_size": 32, "test_size": 2, "epochs": 10, "lr": 0.01}
    losses = run(make(tmp_path, attention="gaussian", **options), SilentProgress()).results[0].train_loss[0]
    assert len(losses) == 10
    assert losses[-1] < losses[0] - 0.005


def test_original_sizes_train_and_invert_one_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    _save_pictures(folder, count=4, height=40, width=33)
    record = run(
        ReconstructionConfig(
            output=tmp_path / "out",
            data=str(folder),
            attention="gaussian",
            image_size="original",
            train_size=2,
            test_size=2,
            repeats=1,
        ),
        SilentProgress(),
    )
    result = record.results[0]
    assert result.image_size == "original"
    assert (record.settings["epochs"], record.settings["batch_size"]) == (1, 1)
    assert (result.metrics.v_score, result.metrics.converged) == (1.0, 1.0)
    assert any("crop" in note for note in record.data["notes"])


def test_a_folder_that_is_missing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a data set"):
        run(make(tmp_path / "out", data=str(tmp_path / "nowhere")), SilentProgress())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_the_published_sets_are_inverted(tmp_path: Path, real_data: Path, name: str) -> None:
    config = make(tmp_path, data=name, data_root=real_data / name, attention="dot_product", test_size=4)
    record = run(config, SilentProgress())
    result = record.results[0]
    assert (result.metrics.v_score, result.metrics.converged) == (1.0, 1.0)
    assert result.metrics.mse_max <= 1e-8
    assert result.paper is not None
    assert "data-root DATA" in record.command
    assert str(real_data) not in (tmp_path / "results.json").read_text()


KILLED = """
import os, signal, sys
from pathlib import Path
from invattn.experiments.reconstruction.config import ReconstructionConfig
from invattn.experiments.reconstruction.run import run
from invattn.experiments.kit.progress import SilentProgress

class Killer(SilentProgress):
    steps = 0
    def advance(self, steps=1, *, note=""):
        self.steps += steps
        if self.steps == 5:
            os.kill(os.getpid(), signal.SIGKILL)

run(ReconstructionConfig(output=Path(sys.argv[1]), attention="gaussian", train_size=8, test_size=4, batch_size=4,
    epochs=4, repeats=1), Killer())
"""


def test_a_killed_process_leaves_no_half_written_file_and_the_run_can_be_repeated(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], capture_output=True, check=False)
    assert process.returncode == -9, process.stderr.decode()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["gaussian-certified-0.ckpt"]
    options = {"attention": "gaussian", "train_size": 8, "test_size": 4, "batch_size": 4, "epochs": 4}
    resumed = run(make(tmp_path / "out", **options, resume=True), SilentProgress())
    fresh = run(make(tmp_path / "fresh", **options), SilentProgress())
    assert resumed.results[0].metrics == fresh.results[0].metrics
    assert resumed.results[0].train_loss == fresh.results[0].train_loss


def test_an_interrupted_run_says_how_to_continue(tmp_path: Path) -> None:
    class Stopper(SilentProgress):
        def advance(self, steps: int = 1, *, note: str = "") -> None:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="Run the same command with --resume"):
        run(make(tmp_path, attention="pointwise", train_size=4, test_size=2, batch_size=2), Stopper())
    assert not (tmp_path / "results.json").exists()


def _save_pictures(folder: Path, *, count: int, height: int, width: int) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
