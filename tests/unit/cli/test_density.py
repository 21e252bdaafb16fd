"""`invattn density`: options, output, and errors of one line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from invattn.cli.main import main
from invattn.experiments import density_data, density_figures

TINY = ["--attention", "gaussian", "--blocks", "1", "--attention-layers", "1", "--hidden-channels", "4", "--steps", "3"]
TINY += ["--batch-size", "4", "--test-size", "8", "--terms", "2"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_figures, "SIDE", 5)
    monkeypatch.setattr(density_data, "FITTED", 32)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert text.startswith("invattn: error:")
    return text


def test_train_then_evaluate_certify_and_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert main(["density", "train", *TINY, "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert "gaussian-certified" in text
    assert f"page: {output / 'report.html'}" in text.replace("\n", "")
    value = json.loads((output / "results.json").read_text())["results"][0]["metrics"]["nats_per_dim"]
    model = str(output / "model" / "gaussian-certified")
    assert main(["density", "evaluate", model, "--test-size", "8", "--unbiased"]) == 0
    text = capsys.readouterr().out
    assert f"nats per dimension: {value:.4f}" in text
    assert "unbiased estimator" in text
    assert main(["certify", model]) == 0
    assert main(["density", "sample", model, "--count", "5", "--output", str(tmp_path / "samples")]) == 0
    with Image.open(tmp_path / "samples" / "samples.png") as picture:
        assert picture.width > picture.height > 300
    capsys.readouterr()
    assert main(["report", str(output)]) == 0


def test_options_may_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("steps: 2\nattention: none\n")
    output = tmp_path / "out"
    arguments = [*TINY[2:], "--config", str(tmp_path / "run.yaml"), "--output", str(output)]
    assert main(["density", "train", *arguments]) == 0
    settings = json.loads((output / "results.json").read_text())["settings"]
    assert (settings["steps"], settings["attention"]) == (2, "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["density", "train", "--data", "setz", "--output", "x"], "Did you mean 'sets'"),
        (["density", "train", "--attention", "uniformm", "--output", "x"], "Did you mean 'uniform'"),
        (["density", "train", "--step", "3", "--output", "x"], "unknown option --step. Did you mean --steps?"),
        (["density", "train"], "--output is required"),
        (["density", "train", "--steps", "0", "--output", "x"], "at least 1"),
        (["density", "trian"], "Did you mean train?"),
        (["density"], "no command was given"),
        (["density", "sample", "m", "--temperature", "0", "--output", "x"], "expected a number above 0"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in error_of(capsys)


def test_a_missing_model_and_a_wrong_temperature_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["density", "evaluate", str(tmp_path / "none")]) == 1
    assert "does not exist" in error_of(capsys)
    assert main(["density", "sample", "m", "--temperature", "99", "--output", str(tmp_path)]) == 1
    assert "temperature must be above 0 and at most 10" in error_of(capsys)


def test_ctrl_c_says_how_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from invattn.training import MaximumLikelihood

    step = MaximumLikelihood.training_step

    def stop(self: Any, batch: Any, batch_idx: int) -> Any:
        if batch.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    arguments = ["density", "train", *TINY, "--output", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(MaximumLikelihood, "training_step", stop)
        assert main(arguments) == 130
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
