from pathlib import Path

import pytest

from invattn.cli.main import main


def error_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a wrong command line gives; fail if there is more, or another status than 2."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("invattn: error: ")
    return captured.err.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "no command was given"),
        ("recon", "unknown command 'recon'. Did you mean reconstruct?"),
        ("reconstruct", "--output is required"),
        ("report", "FOLDERS is required"),
        (
            "reconstruct --output out --attention gausian",
            "--attention: unknown attention kind 'gausian'. Did you mean 'gauss",
        ),
        (
            "reconstruct --output out --recipe certified,relesed",
            "--recipe: unknown recipe 'relesed'. Did you mean 'released'",
        ),
        ("reconstruct --output out --solver picrad", "--solver: unknown solver 'picrad'. Did you mean 'picard'"),
        ("reconstruct --output out --image-size 33", "--image-size: unknown image size '33'"),
        ("reconstruct --output out --atention gaussian", "unknown option --atention. Did you mean --attention?"),
        ("reconstruct --output out --atention=gaussian", "unknown option --atention. Did you mean --attention?"),
        ("reconstruct --output out --epoch 3", "unknown option --epoch. Did you mean --epochs?"),
        ("reconstruct --output out --zzz", "unknown option --zzz."),
        ("reconstruct --output out --epochs", "--epochs: expected one argument"),
        ("reconstruct --output out --epochs 0", "--epochs: expected a whole number, at least 1; got '0'."),
        ("reconstruct --output out --lr fast", "--lr: expected a number above 0; got 'fast'."),
        ("reconstruct --output out --lipschitz 1", "--lipschitz: expected a number between 0 and 1"),
        ("reconstruct --output out stray", "unexpected argument 'stray'"),
        ("density", "no command was given; see `invattn density --help`."),
        ("density trian", "unknown command 'trian'. Did you mean train? Known: train, evaluate, sample."),
        ("density --steps 3 train", "unknown command '3'. Options stand after the command."),
        ("density train", "--output is required; see `invattn density train --help`."),
        ("density train --blok 3 --output x", "unknown option --blok. Did you mean --blocks?"),
        ("density train --step 3 --output x", "unknown option --step. Did you mean --steps?"),
        ("density train --lr abc --output x", "--lr: expected a number above 0; got 'abc'."),
        ("density train --averaging 1 --output x", "--averaging: expected a number, at least 0 and below 1; got '1'."),
        ("density train --accelerator tpu --output x", "--accelerator: unknown accelerator 'tpu'. Did you mean 'gpu'?"),
        ("density train --precision fp23 --output x", "--precision: unknown precision 'fp23'. Did you mean 'fp32'?"),
        ("density train --devices 0 --output x", "--devices: expected a whole number, at least 1; got '0'."),
        ("density evaluate", "MODEL is required; see `invattn density evaluate --help`."),
        ("density evaluate m --test-siz 3", "unknown option --test-siz. Did you mean --test-size?"),
        ("density sample m --output x --temperature -1", "--temperature: expected a number above 0; got '-1'."),
        ("density sample m --output x --temperature hot", "--temperature: expected a number above 0; got 'hot'."),
        ("reconstruct --output out --config absent.yaml", "--config: File does not exist: "),
    ],
)
def test_wrong_command_line_is_one_line(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_line(arguments.split(), capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atention: gaussian", "unknown key 'atention' in the configuration file. Did you mean attention?"),
        ("attention: gausian", "--attention: unknown attention kind 'gausian'. Did you mean 'gaussian'?"),
        ("epochs: 0", "--epochs: expected a whole number, at least 1; got 0."),
        ("lr: yes", "--lr: expected a number above 0; got True."),
        ("resume: 3", "--resume: expected true or false; got 3."),
        ("a: [b", "Problems parsing config"),
        ("only text", "Unexpected config"),
    ],
)
def test_wrong_configuration_file_is_one_line(
    text: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert message in error_line(["reconstruct", "--config", str(file), "--output", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stpes: 3", "unknown key 'stpes' in the configuration file. Did you mean steps?"),
        ("train:\n  steps: 3", "unknown key 'train' in the configuration file."),
        ("steps: 0", "--steps: expected a whole number, at least 1; got 0."),
        ("lr: yes", "--lr: expected a number above 0; got True."),
        ("resume: 3", "--resume: expected true or false; got 3."),
        ("precision: fp23", "--precision: unknown precision 'fp23'. Did you mean 'fp32'? Known: fp32, bf16."),
    ],
)
def test_wrong_configuration_file_of_a_command_within_a_command_is_one_line(
    text: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    arguments = ["density", "train", "--config", str(file), "--output", str(tmp_path / "out")]
    assert message in error_line(arguments, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "reconstruct"),
        (["--version", "--help"], "invattn 0."),
        (["reconstruct", "--help"], "--train-size N"),
        (["report", "--help"], "FOLDER"),
        (["reconstruct", "--print_config", "--epochs", "7"], "epochs: 7"),
    ],
)
def test_asking_for_information(arguments: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    captured = capsys.readouterr()
    assert shown in captured.out
    assert captured.err == ""
