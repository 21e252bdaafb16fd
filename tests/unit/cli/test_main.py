import errno
import subprocess
import sys

import pytest

from invattn import DataError, __version__
from invattn.cli import main as command
from invattn.cli.main import main


def raise_from_report(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run ``invattn report x`` whose work raises ``error``."""

    def fail(folder: object) -> None:
        raise error

    monkeypatch.setattr("invattn.experiments.merged.page.write_report", fail)
    return main(["report", "x"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"invattn {__version__}\n"


def test_arguments_of_the_process_are_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.sys, "argv", ["invattn", "--version"])
    assert main() == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("no images in x:\n  give another folder"), 1, "error: no images in x: give another folder"),
        (OSError(errno.ENOSPC, "No space left on device", "x/a"), 1, "error: x/a: No space left on device; free some"),
        (OSError(errno.EFBIG, "File too large", "x/a"), 1, "error: x/a: File too large; raise the limit"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "error: x: Permission denied; check the perm"),
        (OSError("odd"), 1, "error: odd; check that the path"),
        (KeyboardInterrupt(), 130, "interrupted: run the same command again"),
        (KeyboardInterrupt("stopped: continue with --resume"), 130, "stopped: continue with --resume"),
        (
            ModuleNotFoundError("No module", name="jinja2.sandbox"),
            1,
            "error: this command needs jinja2, which is not inst",
        ),
    ],
)
def test_expected_errors_are_one_line(
    error: BaseException,
    status: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert raise_from_report(error, monkeypatch) == status
    text = capsys.readouterr().err.strip()
    assert text.startswith(f"invattn: {line}")
    assert "\n" not in text


@pytest.mark.parametrize("bug", [ValueError("a bug"), ModuleNotFoundError("No module", name="invattn.absent")])
def test_bugs_keep_their_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(bug)):
        raise_from_report(bug, monkeypatch)


def test_with_torch_alone_the_command_says_how_to_install_the_rest() -> None:
    absent = ["jsonargparse", "lightning", "matplotlib", "numpy", "rich", "yaml", "jinja2", "PIL", "scipy", "skimage"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); "
        "import invattn; from invattn.cli.main import main; "
        "invattn.invertible_attention(4); assert main(['--version']) == 0; sys.exit(main(['reconstruct']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stdout == f"invattn {__version__}\n"
    # torch itself warns that numpy is absent; ours is the last line.
    assert done.stderr.splitlines()[-1] == (
        "invattn: error: this command needs jsonargparse, which is not installed; "
        "install the extra: pip install 'invertible-attention[experiments]'"
    )
