"""`invattn density`: options, output, and errors of one line."""

from __future__ import annotations

import io
import json
import os
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from invattn.cli.main import main
from invattn.experiments.density import data as density_data
from invattn.experiments.density import figures as density_figures

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
        (["density", "train", "--data", "cifar", "--output", "x"], "Did you mean 'cifar10'"),
        (["density", "train", "--flips", "maybe", "--output", "x"], "expected yes or no; got 'maybe'"),
        (["density", "train", "--blocks", "2,x", "--output", "x"], "expected a whole number"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits", "--image-size", "6"], "both sides must be multiples of 8, such as 8 x 8"),
        (["--data", "digits", "--image-size", "16"], "digits are images of 8 x 8 pixels"),
        (["--data", "digits", "--train-size", "5"], "Choose a smaller --batch-size or a larger --train-size"),
        (["--data", "celeba", "--data-root", "nowhere"], "there is no folder nowhere for celeba"),
        (["--data", "two-moons", "--attention", "gaussian"], "unknown attention of a flow 'gaussian'. Known: none"),
        (["--data", "sets", "--epochs", "3"], "has no epochs. Give --steps"),
        (["--data", "digits", "--epochs", "3", "--steps", "9"], "steps and epochs were both given"),
        (["--data", "cifar10", "--attention-positions", "end"], "scale:block pairs"),
    ],
)
def test_options_that_do_not_fit_the_data_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["density", "train", *arguments, "--output", str(tmp_path / "out")]) == 1
    assert message in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_a_missing_model_and_a_wrong_temperature_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["density", "evaluate", str(tmp_path / "none")]) == 1
    assert "does not exist" in error_of(capsys)
    assert main(["density", "sample", "m", "--temperature", "99", "--output", str(tmp_path)]) == 1
    assert "temperature must be above 0 and at most 10" in error_of(capsys)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first step of such a rate takes the weights out of the range of floating point."""
    arguments = ["density", "train", *TINY, "--output", str(tmp_path), "--attention", "gaussian,none"]
    assert main([*arguments, "--lr", "1e30"]) == 1
    line = error_of(capsys)
    assert "2 of 2 trainings stopped early. gaussian-certified, seed 0: the training loss was not finite" in line
    assert "first in part 0 of the flow (ActNorm)" in line
    assert "try a smaller --lr" in line
    for name in ("gaussian-certified-0", "none-certified-0"):
        state = torch.load(tmp_path / "cells" / f"{name}.ckpt", weights_only=True)["state_dict"]
        assert all(bool(value.isfinite().all()) for value in state.values())
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [result["stopped_at"] for result in results] == [1, 1]
    assert [result["metrics"]["nats_per_dim"] for result in results] == [None, None]
    assert all(result["refused"].startswith("the training loss was not finite at step 1") for result in results)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "report.html").exists()


def stopped_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """Stop a training; return the command that goes on and the file of its state."""
    from invattn.experiments.density.training import MaximumLikelihood

    step = MaximumLikelihood.training_step

    def stop(self: Any, batch: Any, batch_idx: int) -> Any:
        if batch.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    arguments = ["density", "train", *TINY, "--output", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(MaximumLikelihood, "training_step", stop)
        assert main(arguments) == 130
    return [*arguments, "--resume"], tmp_path / "run" / "cells" / "gaussian-certified-0.ckpt"


def test_a_damaged_or_foreign_state_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, state = stopped_state(tmp_path, monkeypatch)
    whole = state.read_bytes()
    content = torch.load(state, weights_only=True)
    other = dict(content, state_dict={name: value[:1] for name, value in content["state_dict"].items() if value.dim()})
    cases: list[tuple[object, str]] = [
        (whole[: len(whole) // 2], "is damaged or not one of ours"),
        (b"", "is damaged or not one of ours"),
        (flipped(whole), "is damaged or not one of ours"),
        ({"a": 1}, "damaged or not one of ours: run without --resume"),
        (dict(content, optimizer_states=[]), "damaged or not one of ours: run without --resume"),
        (dict(content, step_losses=[]), "damaged or not one of ours: run without --resume"),
        (other, "of another architecture"),
        (dict(content, run_key="x"), "other options, data or code"),
    ]
    for damaged, message in cases:
        state.write_bytes(damaged) if isinstance(damaged, bytes) else torch.save(damaged, state)
        before = state.read_bytes()
        assert main(arguments) == 1
        assert message in error_of(capsys)
        assert state.read_bytes() == before
    state.write_bytes(whole)
    assert main(arguments) == 0


def flipped(data: bytes) -> bytes:
    """Change one bit in the numbers of a weight, which the restricted unpickler cannot notice."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = max((info for info in archive.infolist() if "/data/" in info.filename), key=lambda info: info.file_size)
    start = data.index(zipfile.ZipFile(io.BytesIO(data)).read(entry))
    return data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :]


def test_another_number_of_processes_must_divide_the_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["density", "train", *TINY, "--devices", "3", "--output", str(tmp_path / "out")]) == 1
    assert "a batch of 4 samples cannot be divided among 3 processes" in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_several_machines_need_to_find_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    arguments = ["density", "train", *TINY, "--nodes", "2", "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "needs NODE_RANK, MASTER_ADDR, MASTER_PORT in the environment" in error_of(capsys)
    for name, value in (("NODE_RANK", "2"), ("MASTER_ADDR", "first"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    assert main(arguments) == 1
    assert "NODE_RANK must be below the number of machines, 2" in error_of(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["density", "train", *TINY, "--accelerator", "gpu", "--output", str(tmp_path / "out")]) == 1
    assert "1 GPUs were asked for and 0 found" in error_of(capsys)


def test_a_damaged_model_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["density", "train", *TINY, "--output", str(tmp_path)]) == 0
    model = tmp_path / "model" / "gaussian-certified"
    for name in sorted(path.name for path in model.iterdir() if path.name != "data.json"):
        whole = (model / name).read_bytes()
        for data in (whole[: len(whole) // 2], b"", b"\x00\xff" * 40):
            (model / name).write_bytes(data)
            for command in (
                ["evaluate", str(model), "--test-size", "4"],
                ["sample", str(model), "--output", str(tmp_path / "unused")],
            ):
                assert main(["density", *command]) == 1, (name, data[:20])
                line = error_of(capsys)
                assert str(model) in line or name in line
        (model / name).unlink()
        assert main(["density", "evaluate", str(model), "--test-size", "4"]) == 1
        error_of(capsys)
        (model / name).write_bytes(whole)
    assert not (tmp_path / "unused").exists()


def test_ctrl_c_says_how_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from invattn.experiments.density.training import MaximumLikelihood

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
