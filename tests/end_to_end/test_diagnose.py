"""``invattn diagnose`` on small models that fold, on certified ones, on bad input, and on real data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invattn.bijections import Bijection
from invattn.cli.main import main
from invattn.experiments.diagnosis.page.page import write_diagnosis
from invattn.experiments.diagnosis.record import DiagnosisRecord
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.reconstruction.run import ReconstructionConfig, run
from invattn.hub import ModelConfig, save_model
from invattn.recipes import Certified, Paper, Recipe
from invattn.solvers import Picard


def write_pictures(folder: Path, *, count: int, side: int = 8) -> Path:
    """Write smooth random pictures."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR).save(folder / f"{number:02}.png")
    return folder


def folding_model(folder: Path, recipe: Recipe, *, sharpness: float = 3.0) -> Bijection:
    """Save a block whose scores are -sharpness^2 x_i . x_j, with values and outputs of 0.9."""
    solver = Picard(max_steps=100, early_stop=False) if isinstance(recipe, Paper) else None
    config = ModelConfig(
        channels=12, kind="embedded_gaussian", recipe=recipe, key_channels=12, squeeze=2, solver=solver
    )
    model = config.build()
    identity = torch.eye(12)
    with torch.no_grad():
        for name, parameter in config.block_of(model).branch.named_parameters():
            sign = {"query": sharpness, "key": -sharpness}.get(name.split(".")[-2], 0.9)
            parameter.copy_(sign * identity if name.endswith("weight") else torch.zeros_like(parameter))
    save_model(model.eval(), folder, config=config)
    return model


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run on a block that folds, beside its model and pictures."""
    root = tmp_path_factory.mktemp("diagnose")
    folding_model(root / "model", Paper())
    pictures = write_pictures(root / "pictures", count=16)
    options = ["--data", str(pictures), "--image-size", "original", "--output", str(root / "out")]
    assert main(["diagnose", str(root / "model"), *options]) == 0
    return root


def test_a_folding_block_is_caught(folded: Path) -> None:
    record = DiagnosisRecord.read(folded / "out" / "results.json")
    summary = record.summary()
    assert summary["images"] == len(record.images) == 8
    assert summary["det_computed"] == 8  # 192 entries an image
    assert summary["det_negative"] >= 1
    assert summary["second_preimages"] >= 1
    assert summary["pairs"] >= 1
    assert summary["lost"] >= 1
    assert summary["recall"] == 1.0
    assert record.model["certificate"] is None
    assert record.model["picard_steps"] == 100
    for image in record.images:
        assert image.det_sign >= 0 or image.second_preimage
    assert json.loads((folded / "out" / "results.json").read_text())["summary"]["pairs"] == summary["pairs"]
    assert str(folded) not in record.command


def test_the_stored_pairs_really_have_one_output(folded: Path) -> None:
    with np.load(folded / "out" / "artifacts" / "diagnosis.npz") as stored:
        assert stored["pair_first"].dtype == stored["pair_second"].dtype == np.uint8
        assert len(stored["pair_index"]) == len(stored["pair_first"]) == len(stored["pair_difference"])
        assert float(stored["pair_difference"].max(axis=(1, 2)).min()) >= 2.0
    record = DiagnosisRecord.read(folded / "out" / "results.json")
    assert all(image.output_difference <= 1e-5 for image in record.images if image.collides)


def test_the_page_stands_alone_and_the_pictures_are_written(folded: Path) -> None:
    page = (folded / "out" / "diagnose.html").read_text(encoding="utf-8")
    assert "This block is not invertible" in page
    assert page.count("<svg") == 4
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    for name, columns in (("flagged.png", 2), ("pairs.png", 3)):
        with Image.open(folded / "out" / name) as picture:
            assert picture.width == 3 * (columns * 12 - 4)
    (folded / "out" / "artifacts" / "diagnosis.npz").rename(folded / "kept.npz")
    assert [path.name for path in write_diagnosis(folded / "out")] == ["diagnose.html"]
    assert not (folded / "out" / "pairs.png").exists()
    assert "the run stored no pictures" in (folded / "out" / "diagnose.html").read_text(encoding="utf-8")
    (folded / "kept.npz").write_bytes((folded / "kept.npz").read_bytes()[:200])
    (folded / "kept.npz").rename(folded / "out" / "artifacts" / "diagnosis.npz")
    write_diagnosis(folded / "out")
    assert "is damaged" in (folded / "out" / "diagnose.html").read_text(encoding="utf-8")


def test_a_certified_block_is_never_flagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folding_model(tmp_path / "model", Certified())
    pictures = write_pictures(tmp_path / "pictures", count=6)
    options = ["--data", str(pictures), "--image-size", "original", "--images", "2", "--output", str(tmp_path / "out")]
    assert main(["diagnose", str(tmp_path / "model"), *options]) == 0
    record = DiagnosisRecord.read(tmp_path / "out" / "results.json")
    summary = record.summary()
    assert (summary["images"], summary["flagged"], summary["second_preimages"], summary["lost"]) == (2, 0, 0, 0)
    assert (summary["recall"], summary["precision"]) == (None, None)
    assert record.model["certificate"]["norm"] == "inf,2"
    assert "recall of the flag: -" in capsys.readouterr().out
    assert "This block has a certificate" in (tmp_path / "out" / "diagnose.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], "does not exist"),
        (["MODEL", "--data", "fotos"], "did you mean photos?"),
        (["MODEL", "--output", "MODEL/config.json"], "not a folder"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folding_model(tmp_path / "model", Paper())
    given = [argument.replace("MODEL", str(tmp_path / "model")) for argument in arguments]
    capsys.readouterr()
    assert main(["diagnose", "--output", str(tmp_path / "out"), *given]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("invattn: error: ")
    assert words in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "value"), [("--starts", "3"), ("--starts", "0"), ("--images", "none")])
def test_impossible_options_are_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["diagnose", str(tmp_path), "--output", str(tmp_path / "out"), option, value])
    assert stop.value.code == 2
    assert f"invattn: error: {option}" in capsys.readouterr().err


def test_a_tampered_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folding_model(tmp_path / "model", Certified())
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert main(["diagnose", str(tmp_path / "model"), "--output", str(tmp_path / "out")]) == 1
    assert "differs from its certificate" in capsys.readouterr().err


def test_ctrl_c_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folding_model(tmp_path / "model", Paper())
    monkeypatch.setattr("invattn.experiments.diagnosis.run.diagnose", stop)
    assert main(["diagnose", str(tmp_path / "model"), "--output", str(tmp_path / "out")]) == 130
    assert "--images" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out" / "results.json").exists()
    assert not (tmp_path / "out" / "diagnose.html").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


def train_and_diagnose(recipe: str, *, images: int, data: Path, folder: Path) -> DiagnosisRecord:
    """Train as in the paper, with the library's own experiment, and diagnose."""
    usual = ReconstructionConfig(
        output=folder / recipe,
        data="cifar10",
        data_root=data,
        attention="gaussian",
        recipe=recipe,
        repeats=1,
        iterations=100,
    )
    run(usual, SilentProgress())
    model, output = folder / recipe / "model" / f"gaussian-{recipe}", folder / f"diagnosis-{recipe}"
    options = ["--data", "cifar10", "--data-root", str(data), "--images", str(images), "--output", str(output)]
    assert main(["diagnose", str(model), *options]) == 0
    return DiagnosisRecord.read(output / "results.json")


@pytest.mark.slow
def test_the_released_gaussian_block_maps_different_photographs_to_one_output(real_data: Path, trained: Path) -> None:
    record = train_and_diagnose("released", images=500, data=real_data, folder=trained)
    summary = record.summary()
    assert summary["lost"] >= 10
    assert summary["recall"] == 1.0
    assert summary["precision"] >= 0.5
    assert summary["pairs"] >= 1
    with Image.open(trained / "diagnosis-released" / "pairs.png") as picture:
        assert picture.width == 3 * (3 * 36 - 4)


@pytest.mark.slow
def test_the_certified_gaussian_block_with_the_same_training_has_no_collision(real_data: Path, trained: Path) -> None:
    """Four starts for each of 125 images are 500."""
    record = train_and_diagnose("certified", images=125, data=real_data, folder=trained)
    summary = record.summary()
    assert record.settings["starts"] * summary["images"] == 500
    assert (summary["second_preimages"], summary["pairs"], summary["flagged"], summary["lost"]) == (0, 0, 0, 0)
