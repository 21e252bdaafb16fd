"""Bad input: one line that says what is wrong, a status that is not 0, and nothing half-written."""

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from invattn.cli.main import main
from invattn.experiments.reconstruction.record import ReconstructionRecord

QUICK = ["--attention=gaussian", "--epochs=1", "--repeats=1", "--train-size=4", "--test-size=2", "--batch-size=2"]

ErrorLine = Callable[..., str]


@pytest.fixture
def error_line(capsys: pytest.CaptureFixture[str]) -> ErrorLine:
    """Run a quick ``invattn reconstruct`` that must fail with status 1; return the one line of error."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["reconstruct", *QUICK, *map(str, arguments)]) == 1
        errors = capsys.readouterr().err.splitlines()
        lines = [line for line in errors if line.startswith("invattn: ")]
        assert lines == errors[-1:], errors
        assert not any("Traceback" in line for line in errors)
        return lines[0]

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_pictures(folder: Path, *, count: int = 8, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Path:
    """Write random pictures of (height, width) ``size``."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 256, (*size, 4), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{mode}{number}.png")
    return folder


class CallsSystem:
    """Pickles to a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def test_missing_folder(error_line: ErrorLine, tmp_path: Path) -> None:
    line = error_line("--data", tmp_path / "absent", "--output", tmp_path / "out")
    assert "neither a data set" in line
    assert not (tmp_path / "out").exists()


def test_misspelt_data_set(error_line: ErrorLine, tmp_path: Path) -> None:
    assert "did you mean photos?" in error_line("--data", "fotos", "--output", tmp_path / "out")


def test_empty_folder(error_line: ErrorLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images" in error_line("--data", tmp_path / "empty", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_text_file_among_images(error_line: ErrorLine, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    (folder / "notes.txt").write_text("not a picture")
    line = error_line("--data", folder, "--output", tmp_path / "out")
    assert "notes.txt is not an image" in line
    assert not (tmp_path / "out").exists()


def test_text_that_calls_itself_an_image(error_line: ErrorLine, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", count=1)
    for number in range(7):
        (folder / f"fake{number}.png").write_text("not a picture")
    assert "fake" in error_line("--data", folder, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_image_of_one_pixel(error_line: ErrorLine, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", size=(1, 1))
    assert "1x1 pixels" in error_line("--data", folder, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_truncated_pickle(error_line: ErrorLine, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = pickle.dumps({"data": np.zeros((8, 3072), dtype=np.uint8), "labels": [0] * 8}, protocol=2)
    (folder / "data_batch_1").write_bytes(batch[: len(batch) // 2])
    line = error_line("--data", "cifar10", "--data-root", tmp_path, "--output", tmp_path / "out")
    assert "data_batch_1" in line
    assert not (tmp_path / "out").exists()


def test_pickle_that_would_call_a_program(error_line: ErrorLine, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    trace = tmp_path / "called"
    (folder / "data_batch_1").write_bytes(pickle.dumps(CallsSystem(f"touch {trace}"), protocol=2))
    line = error_line("--data", "cifar10", "--data-root", tmp_path, "--output", tmp_path / "out")
    assert "data_batch_1" in line
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


def test_matlab_file_without_images(error_line: ErrorLine, tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"y": np.zeros((8, 1))})
    line = error_line("--data", "svhn", "--data-root", tmp_path, "--output", tmp_path / "out")
    assert "train_32x32.mat" in line
    assert not (tmp_path / "out").exists()


def test_output_below_a_file(error_line: ErrorLine, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for output in (file, file / "out"):
        assert "not a folder" in error_line("--output", output)
    assert contents(tmp_path) == {"file": b"precious"}


@pytest.mark.parametrize(
    ("size", "mode", "note"), [((3, 5), "RGB", "cropped"), ((6, 4), "L", "grey"), ((6, 4), "RGBA", "alpha")]
)
def test_odd_grey_and_transparent_images_are_converted_and_it_is_said(
    size: tuple[int, int], mode: str, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "pictures", size=size, mode=mode)
    options = ["--data", str(folder), "--image-size", "original", "--output", str(tmp_path / "out")]
    assert main(["reconstruct", *QUICK, *options]) == 0
    record = ReconstructionRecord.read(tmp_path / "out" / "results.json")
    assert any(note in text for text in record.data["notes"])
    assert note in capsys.readouterr().out


def test_a_full_disk_leaves_the_old_result(
    error_line: ErrorLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main(["reconstruct", *QUICK, "--output", str(out)]) == 0
    before = contents(out)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if b'"schema_version"' in bytes(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    line = error_line("--output", out)
    assert "results.json" in line
    assert "No space left on device" in line
    after = contents(out)
    assert after["results.json"] == before["results.json"]
    assert after["report.html"] == before["report.html"]
    assert not [name for name in after if name.endswith(".tmp")]


@pytest.mark.parametrize("kilobytes", [1, 8, 64])
def test_a_limit_on_file_sizes_leaves_no_part_of_a_file(kilobytes: int, error_line: ErrorLine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, before[1]))
    try:
        line = error_line("--output", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in line
    assert not [name for name in contents(out) if name.endswith(".tmp")]
    assert not (out / "report.html").exists()


def test_an_interrupted_training_continues_to_the_same_result(tmp_path: Path) -> None:
    options = ["--attention=gaussian", "--epochs=15", "--repeats=1", "--train-size=64", "--test-size=2"]
    command = ["reconstruct", *options, "--batch-size=4", "--output"]
    program = "import sys; from invattn.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command, tmp_path / "stopped"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "train" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "--resume" in errors.splitlines()[-1]
    assert not (tmp_path / "stopped" / "results.json").exists()
    assert main([*command, str(tmp_path / "stopped"), "--resume"]) == 0
    assert main([*command, str(tmp_path / "straight")]) == 0
    continued, straight = (
        ReconstructionRecord.read(tmp_path / name / "results.json") for name in ("stopped", "straight")
    )
    assert continued.results[0].metrics == straight.results[0].metrics
    assert continued.results[0].train_loss == straight.results[0].train_loss
