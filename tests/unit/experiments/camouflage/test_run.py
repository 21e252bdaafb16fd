"""Camouflaged object detection from options to record."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from invattn._errors import DataError
from invattn.experiments.camouflage.config import QUICK, camouflage_config
from invattn.experiments.camouflage.data import TrainingPairs, open_camouflage_data
from invattn.experiments.camouflage.evaluation import evaluate_maps, predict_folder
from invattn.experiments.camouflage.measure import mean_mask, measure_maps, predict_map
from invattn.experiments.camouflage.network import load_network
from invattn.experiments.camouflage.record import CamouflageRecord
from invattn.experiments.camouflage.run import CamouflageConfig, make_cells, run_camouflage
from invattn.experiments.camouflage.scores import MapMeasures
from invattn.experiments.camouflage.synthetic import SyntheticCamouflage
from invattn.experiments.camouflage.training import start_network
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.interruption import Interrupted

SMALL: dict[str, Any] = {"backbone": "small", "backbone_weights": "none", "image_size": 48, "train_size": 8}
SMALL |= {"test_size": 3, "batch_size": 4, "epochs": 2, "lr": 1e-3, "attention": "concatenation", "recipe": "certified"}


def options(output: Path, **changes: Any) -> CamouflageConfig:
    return CamouflageConfig(**{**SMALL, **changes}, output=output)


class Progress(SilentProgress):
    def __init__(self, stop: int = -1) -> None:
        self.messages: list[str] = []
        self.done, self.stop = 0, stop

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.done += steps
        if self.done == self.stop:
            os.kill(os.getpid(), signal.SIGINT)

    def message(self, text: str) -> None:
        self.messages.append(text)


def plain(record: CamouflageRecord) -> list[dict[str, Any]]:
    """The rows without what differs from run to run."""
    return [{k: v for k, v in row.to_json().items() if k not in ("seconds", "peak_memory")} for row in record.rows]


def test_a_run_writes_record_models_and_arrays(tmp_path: Path) -> None:
    record = run_camouflage(options(tmp_path, attention="none,concatenation"), SilentProgress())
    content = json.loads((tmp_path / "results.json").read_text())
    assert CamouflageRecord.from_json(content).to_json() == content
    assert [(row["attention"], row["recipe"], row["seed"]) for row in content["rows"]] == [
        ("none", "none", 0),
        ("concatenation", "certified", 0),
    ]
    metrics = {
        "s_measure",
        "f_mean",
        "f_max",
        "f_adaptive",
        "f_weighted",
        "e_mean",
        "e_max",
        "e_adaptive",
        "mae",
        "images",
    }
    for row in content["rows"]:
        assert set(row["sets"]["synthetic"]) == metrics
        assert np.mean(row["s_each"]["synthetic"]) == pytest.approx(row["sets"]["synthetic"]["s_measure"])
        assert row["parameters"] > 1e6
        assert row["peak_memory"] > 2**24
        assert len(row["train_loss"]) == 2
    base, certified = record.rows
    assert base.inverse is None
    assert certified.inverse is not None
    assert certified.inverse["error_max"] <= 1e-4
    assert certified.inverse["images"] == 3
    assert certified.certificate is not None
    assert certified.certificate["bound"] < 1
    assert content["data"]["sets"] == {"synthetic": 3}
    with np.load(tmp_path / "artifacts" / "concatenation-certified.npz") as arrays:
        assert arrays["threshold_f"].shape == arrays["threshold_e"].shape == (1, 256)
        assert arrays["map_pictures"].shape[:2] == (3, 3)
    # The table's figures are those of the stored model's maps.
    network, config = load_network(tmp_path / "model" / "concatenation-certified")
    test = SyntheticCamouflage("test", count=3, side=48, difficulty=0.5, seed=0)
    again = measure_maps(
        lambda n: predict_map(network, test.pair(n)[0], side=config.image_size), test, on_image=lambda: None
    )
    assert again.metrics.s_measure == pytest.approx(certified.sets["synthetic"].s_measure)


def test_finished_rows_are_kept_and_other_options_refused(tmp_path: Path) -> None:
    first, progress = run_camouflage(options(tmp_path), SilentProgress()), Progress()
    again = run_camouflage(options(tmp_path), progress)
    assert plain(again) == plain(first)
    assert progress.messages == ["concatenation-certified-0: finished before, skipped"]
    with pytest.raises(DataError, match="other options, data or code"):
        run_camouflage(options(tmp_path, lr=2e-3), SilentProgress())


def test_an_interrupted_run_continues_to_the_same_result(tmp_path: Path) -> None:
    whole = run_camouflage(options(tmp_path / "whole"), SilentProgress())
    with pytest.raises(Interrupted, match="--resume"):
        run_camouflage(options(tmp_path / "part"), Progress(stop=2))
    assert (tmp_path / "part" / "cells" / "concatenation-certified-0.ckpt").exists()
    resumed = run_camouflage(options(tmp_path / "part", resume=True), SilentProgress())
    assert plain(resumed) == plain(whole)


def test_predicted_files_measure_as_the_table_says(tmp_path: Path) -> None:
    record = run_camouflage(options(tmp_path / "run"), SilentProgress())
    test = SyntheticCamouflage("test", count=3, side=48, difficulty=0.5, seed=0)
    for name in ("Imgs", "GT"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number in range(3):
        image, mask = test.pair(number)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "set" / "Imgs" / f"{number}.png")
        Image.fromarray(mask.numpy()).save(tmp_path / "set" / "GT" / f"{number}.png")
    model = tmp_path / "run" / "model" / "concatenation-certified"
    maps = tmp_path / "maps"
    assert predict_folder(model, tmp_path / "set" / "Imgs", output=maps, progress=SilentProgress()) == 3
    found = evaluate_maps(maps, tmp_path / "set" / "GT", name=None, output=tmp_path / "e", progress=SilentProgress())
    assert list(found) == ["set"]
    assert vars(found["set"]) == pytest.approx(vars(record.rows[0].sets["synthetic"]))
    assert json.loads((tmp_path / "e" / "results.json").read_text())["sets"]["set"]["images"] == 3


def test_named_sets_with_other_counts_are_noted(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "cod" / "TestDataset" / "CAMO"
    if not folder.is_dir():
        pytest.skip("the data folder holds no cod")
    record = run_camouflage(options(tmp_path, test=(("CAMO", folder),)), SilentProgress())
    assert "CAMO has 3 images, the published figures are of 250" in record.data["notes"]
    assert record.rows[0].sets["CAMO"].images == 3


def test_the_mean_mask_is_the_mean(tmp_path: Path) -> None:
    train = SyntheticCamouflage("train", count=5, side=48, difficulty=0.5, seed=0)
    mean = mean_mask(train, side=48)
    by_hand = torch.stack([train.pair(number)[1].double() for number in range(5)]).mean(dim=0)
    assert float((mean.double() - by_hand).abs().max()) <= 0.5
    measures = MapMeasures()
    measures.add(mean.numpy(), train.pair(0)[1].numpy())
    assert 0 < measures.scores().metrics.s_measure < 1


def test_the_backbone_is_trained_once_and_every_row_starts_from_it(tmp_path: Path) -> None:
    config = options(tmp_path, attention="none", pretrain_epochs=1, epochs=1, repeats=2)
    first = run_camouflage(config, SilentProgress())
    assert [row.seed for row in first.rows] == [0, 1]
    stored = json.loads((tmp_path / "cells" / "backbone.json").read_text())
    assert len(stored["train_loss"]) == 1
    data = open_camouflage_data(config)
    starts = [start_network(cell).backbone.state_dict() for cell in make_cells(config, data)]
    assert all(torch.equal(start[name], starts[0][name]) for start in starts for name in start)
    progress = Progress()
    run_camouflage(config, progress)
    assert progress.messages[0] == "backbone: trained before, skipped"
    with pytest.raises(DataError, match="other options, data or code"):
        run_camouflage(options(tmp_path, attention="dot_product", pretrain_epochs=2), SilentProgress())
    (tmp_path / "cells" / "backbone.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="no weights of this backbone"):
        start_network(make_cells(config, data)[0])


def test_a_run_stopped_while_the_backbone_trains_continues_to_the_same_result(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"pretrain_epochs": 2, "vary": True}
    whole = run_camouflage(options(tmp_path / "whole", **changes), SilentProgress())
    with pytest.raises(Interrupted, match="--resume"):
        run_camouflage(options(tmp_path / "part", **changes), Progress(stop=3))
    assert (tmp_path / "part" / "cells" / "backbone.ckpt").exists()
    resumed = run_camouflage(options(tmp_path / "part", resume=True, **changes), SilentProgress())
    assert plain(resumed) == plain(whole)


@pytest.mark.slow
def test_rows_trained_at_the_same_time_are_those_trained_one_by_one(tmp_path: Path) -> None:
    changes = {"attention": "none,concatenation", "pretrain_epochs": 1, "preview": False}
    alone = run_camouflage(options(tmp_path / "alone", **changes), SilentProgress())
    progress = Progress()
    together = run_camouflage(options(tmp_path / "together", workers=2, **changes), progress)
    assert plain(together) == plain(alone)
    assert progress.done >= 2
    again = run_camouflage(options(tmp_path / "together", workers=2, **changes), SilentProgress())
    assert plain(again) == plain(alone)


def test_varied_pairs_depend_on_epoch_and_number_and_keep_the_mask_at_its_object() -> None:
    train = SyntheticCamouflage("train", count=6, side=48, difficulty=0.0, seed=0)
    plain_pairs, varied = TrainingPairs(train, side=48), TrainingPairs(train, side=48, varied=3)
    index = torch.arange(6)
    assert torch.equal(varied(index, 1), torch.cat([varied(index[3:], 1), varied(index[:3], 1)])[[3, 4, 5, 0, 1, 2]])
    assert not torch.equal(varied(index, 1), varied(index, 2))
    for before, after in zip(plain_pairs(index), varied(index, 1), strict=True):
        # Turns and mirrors move pixels, recolouring keeps or narrows the spread of the channels of each.
        assert float(before[3].sum()) == float(after[3].sum())
        inside = [float(pair[:3].mean(dim=0)[pair[3] > 0.5].mean()) for pair in (before, after)]
        assert inside[0] == pytest.approx(inside[1], abs=1e-5)


def test_thirteen_rows_and_the_papers_protocol() -> None:
    config = CamouflageConfig(output=Path("out"))
    assert len(config.variants()) == 13
    assert config.variants()[0] == ("none", "none")
    assert (config.image_size, config.lr, config.batch_size, config.epochs) == (352, 2.5e-5, 6, 30)
    quick = camouflage_config({"output": Path("out"), "quick": True, "lr": 0.1})
    assert (quick.image_size, quick.backbone, quick.lr) == (96, "small", 0.1)
    assert quick.epochs == QUICK["epochs"]
    assert camouflage_config({"output": Path("out"), "quick": False}) == config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"attention": "gausian"}, "Did you mean 'gaussian'"),
        ({"recipe": "certifed"}, "Did you mean 'certified'"),
        ({"backbone": "vgg"}, "unknown backbone"),
        ({"image_size": 32}, "at least 33"),
        ({"epochs": 0}, "epochs: expected a whole number, at least 1"),
        ({"workers": 2, "devices": 2}, "workers train different rows"),
        ({"pretrain_epochs": -1}, "pretrain_epochs: expected a whole number, at least 0"),
        ({"pretrain_epochs": 1, "nodes": 2}, "for one machine"),
        ({"lr": 0.0}, "lr: expected a number above 0"),
        ({"difficulty": 2.0}, "difficulty: expected a number, at least 0 and at most 1"),
        ({"test": (("A", Path("x")), ("A", Path("y")))}, "two test sets have one name"),
        ({"backbone_weights": "hub"}, "those of resnet50"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        options(Path("out"), **changes)


def test_too_few_images_for_a_batch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="smaller --batch-size"):
        run_camouflage(options(tmp_path, batch_size=9), SilentProgress())
    assert not (tmp_path / "cells").exists()
