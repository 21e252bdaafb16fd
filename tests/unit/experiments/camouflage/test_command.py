"""`invattn camouflage`: options, output, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from invattn.cli.main import main

SMALL = [
    "--backbone",
    "small",
    "--backbone-weights",
    "none",
    "--image-size",
    "48",
    "--train-size",
    "4",
    "--test-size",
    "2",
]
SMALL += ["--batch-size", "2", "--epochs", "1", "--attention", "none,gaussian", "--recipe", "certified"]


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("invattn: error:")]
    assert len(lines) == 1
    return lines[0]


def status(*arguments: str) -> int:
    try:
        return main(["camouflage", *arguments])
    except SystemExit as error:
        return int(error.code or 0)


def image(path: Path, *, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", size, 0)
    picture.paste(255, (5, 5, 20, 20))
    picture.save(path)


def test_train_predict_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert status("train", *SMALL, "--output", str(output)) == 0
    text = capsys.readouterr().out
    assert "the mean training mask has S" in text
    assert "page: " in text
    assert (output / "report.html").exists()
    assert main(["report", str(output), str(output), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "merged.html").exists()
    for stem in ("a", "b"):
        image(tmp_path / "set" / "Imgs" / f"{stem}.png")
        image(tmp_path / "set" / "GT" / f"{stem}.png")
    model = str(output / "model" / "gaussian-certified")
    maps = str(tmp_path / "maps")
    assert status("predict", model, "--images", str(tmp_path / "set" / "Imgs"), "--output", maps) == 0
    with Image.open(tmp_path / "maps" / "a.png") as found:
        assert (found.mode, found.size) == ("L", (40, 30))
    evaluate = ["evaluate", "--predictions", maps, "--masks", str(tmp_path / "set"), "--output", str(tmp_path / "e")]
    assert status(*evaluate) == 0
    content = json.loads((tmp_path / "e" / "results.json").read_text())
    assert content["sets"]["set"]["images"] == 2
    assert status("predict", str(tmp_path), "--images", maps, "--output", str(tmp_path / "m")) == 1
    assert "does not exist" in error_of(capsys)


def test_several_sets_are_folders_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("CAMO", "NC4K"):
        image(tmp_path / "maps" / name / "x.png", size=(20, 15))
        image(tmp_path / "sets" / name / "GT" / "x.png")
    options = ["--predictions", str(tmp_path / "maps"), "--masks", str(tmp_path / "sets"), "--output", str(tmp_path)]
    assert status("evaluate", *options) == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["sets"]) == ["CAMO", "NC4K"]
    page = (tmp_path / "maps.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Images, masks and maps of NC4K" in page
    assert status("evaluate", *options) == 0  # what was written is taken for no map
    capsys.readouterr()
    assert status("evaluate", *options, "--name", "one") == 1
    assert "leave it out" in error_of(capsys)
    image(tmp_path / "maps" / "OTHER" / "x.png")
    assert status("evaluate", *options) == 1
    assert "has no folder OTHER" in error_of(capsys)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--attention", "gausian"], "Did you mean 'gaussian'"),
        (["--recipe", "best"], "unknown recipe"),
        (["--image-size", "10"], "at least 33"),
        (["--test", "CAMO"], "expected NAME=DIR"),
        (["--data", "/nowhere"], "unknown data set, or folder,"),
        (["--epoch", "3"], "Did you mean --epochs"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("train", *arguments, "--output", str(tmp_path)) == 2
    assert text in error_of(capsys)


def test_a_test_set_that_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("train", *SMALL, "--test", f"CAMO={tmp_path}", "--output", str(tmp_path / "out")) == 1
    assert "has no folder Imgs" in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_evaluate_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "maps" / "a.png")
    image(tmp_path / "masks" / "b.png")
    options = ["--predictions", str(tmp_path / "maps"), "--masks", str(tmp_path / "masks"), "--output", str(tmp_path)]
    assert status("evaluate", *options) == 1
    assert "has no mask for 1 map (a)" in error_of(capsys)
    assert not (tmp_path / "results.json").exists()
    assert status("evaluate", "--predictions", str(tmp_path / "no"), "--masks", str(tmp_path)) == 1
    assert "there is no folder" in error_of(capsys)


def test_images_that_do_not_fit_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("CAMO", "NC4K"):
        image(tmp_path / "maps" / name / "x.png")
        image(tmp_path / "sets" / name / "GT" / "x.png")
    image(tmp_path / "sets" / "CAMO" / "Imgs" / "x.png")
    sets = str(tmp_path / "sets")
    options = ["--predictions", str(tmp_path / "maps"), "--masks", sets, "--output", str(tmp_path), "--images"]
    assert status("evaluate", *options, str(tmp_path / "no")) == 1
    assert "laid out as --masks" in error_of(capsys)
    image(tmp_path / "sets" / "NC4K" / "Imgs" / "y.png")
    assert status("evaluate", *options, sets) == 1
    assert "has no mask for 1 image (y)" in error_of(capsys)
    assert not (tmp_path / "results.json").exists()
