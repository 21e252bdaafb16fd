"""A write either replaces the whole file or changes nothing at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from invattn import _files

OLD = b"the old content\n"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_bytes(OLD)
    return path


def assert_untouched(target: Path) -> None:
    assert target.read_bytes() == OLD
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_replaces_the_content_and_leaves_no_temporary(target: Path) -> None:
    _files.atomic_write(target, b"new" * 100_000)
    assert target.read_bytes() == b"new" * 100_000
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


def test_creates_a_new_file_with_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_bytes(b"")
    _files.atomic_write(tmp_path / "new", b"")
    assert (tmp_path / "new").stat().st_mode == ordinary.stat().st_mode


def test_follows_a_symbolic_link(target: Path) -> None:
    link = target.with_name("link.json")
    link.symlink_to(target.name)
    _files.atomic_write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_short_write_is_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
    _files.atomic_write(target, b"0123456789")
    assert target.read_bytes() == b"0123456789"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_no_space_left_changes_nothing(target: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        _files.atomic_write(target, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(target)
    monkeypatch.undo()
    assert_untouched(target)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_an_interrupt_changes_nothing(target: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        _files.atomic_write(target, b"new")
    monkeypatch.undo()
    assert_untouched(target)


def test_failure_half_way_after_some_bytes_changes_nothing(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    calls = []

    def write(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:2])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        _files.atomic_write(target, b"new content")
    monkeypatch.undo()
    assert len(calls) == 2
    assert_untouched(target)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
def test_a_file_size_limit_changes_nothing(target: Path) -> None:
    script = textwrap.dedent(
        """
        import errno, resource, signal, sys, types
        # The package's __init__ loads torch, which this test does not need: only the two modules are loaded.
        package = types.ModuleType("invattn")
        package.__path__ = [sys.argv[2]]
        sys.modules["invattn"] = package
        from invattn._files import atomic_write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            atomic_write(sys.argv[1], b"x" * 100_000)
        except OSError as error:
            sys.exit(0 if error.errno == errno.EFBIG else f"wrong errno: {error}")
        sys.exit("the limit was not met")
        """
    )
    command = [sys.executable, "-B", "-c", script, str(target), str(Path(_files.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert_untouched(target)


def test_a_missing_folder_is_reported_with_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        _files.atomic_write(tmp_path / "absent" / "results.json", b"")
    assert caught.value.filename == str(tmp_path / "absent" / "results.json")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_cannot_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        _files.atomic_write(tmp_path / "taken", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
