import errno
import os
from pathlib import Path

import pytest
import torch

from invattn._errors import DataError
from invattn.experiments.kit.training.checkpoint import AtomicCheckpointIO

STATE = {"weights": {"w": torch.arange(3.0)}, "step": 7, "losses": [0.5, 0.25], "name": "cell", "none": None}


def test_round_trip_creates_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert torch.equal(loaded["weights"]["w"], STATE["weights"]["w"])  # type: ignore[index]
    assert {key: loaded[key] for key in ("step", "losses", "name", "none")} == {
        key: STATE[key] for key in ("step", "losses", "name", "none")
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["b.ckpt"]


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_a_failing_save_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = tmp_path / "state.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"step": 8}, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.ckpt"]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state": Malicious()}, tmp_path / "evil.ckpt")
    with pytest.raises(DataError, match="not one of ours"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt", weights_only=False)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_truncated_checkpoint_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "state.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged") as caught:
        AtomicCheckpointIO().load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no checkpoint"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")


def test_a_bare_tensor_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "tensor.ckpt")
    with pytest.raises(DataError, match="not one of ours"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "tensor.ckpt")


def test_storage_options_are_refused_and_removal_is_idempotent(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "x.ckpt", storage_options={})
    AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "x.ckpt")
    AtomicCheckpointIO().remove_checkpoint(tmp_path / "x.ckpt")
    AtomicCheckpointIO().remove_checkpoint(tmp_path / "x.ckpt")
    assert not list(tmp_path.iterdir())
