"""Stored arrays are checked, and what cannot be used is named instead of drawn."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from invattn.experiments.kit.page.artifacts import Artifact, MissingPartError, collect


def stored(folder: Path, **arrays: object) -> Artifact:
    (folder / "artifacts").mkdir(exist_ok=True)
    np.savez(folder / "artifacts" / "gaussian-certified.npz", **arrays)  # type: ignore[arg-type]
    return Artifact(folder, attention="gaussian", recipe="certified")


def test_arrays_come_back_as_stored(tmp_path: Path, sample: ModuleType) -> None:
    arrays = sample.artifact("gaussian", "certified", images=2)
    artifact = stored(tmp_path, **arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(artifact.take(name)[0], value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("errors", np.zeros((2, 4)), "unexpected shape"),
        ("losses", np.array(["a"]), "unexpected shape or type"),
        ("losses", np.array([1j]), "unexpected shape or type"),
        ("losses", np.zeros(0), "empty"),
        ("originals", np.zeros((2, 4, 4, 3)), "unexpected shape or type"),
        ("originals", np.zeros((2, 4, 4, 1), np.uint8), "not a colour image"),
        ("losses", np.array([{}], dtype=object), "damaged"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, name: str, value: object, reason: str) -> None:
    with pytest.raises(MissingPartError, match=reason):
        stored(tmp_path, **{name: value}).take(name)


def test_an_absent_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="'losses'"):
        stored(tmp_path, all_mse=np.ones(3)).take("losses")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_truncated_file_is_damaged(tmp_path: Path, sample: ModuleType, keep: float) -> None:
    artifact = stored(tmp_path, **sample.artifact("gaussian", "certified", images=2))
    path = tmp_path / "artifacts" / "gaussian-certified.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(MissingPartError, match="damaged"):
        artifact.take("originals")


def test_a_bare_array_is_no_archive(tmp_path: Path) -> None:
    artifact = stored(tmp_path, losses=np.ones(2))
    with (tmp_path / "artifacts" / "gaussian-certified.npz").open("wb") as stream:
        np.save(stream, np.ones(2))
    with pytest.raises(MissingPartError, match="damaged"):
        artifact.take("losses")


def test_flipped_bytes_inside_are_damaged(tmp_path: Path) -> None:
    artifact = stored(tmp_path, losses=np.arange(1000.0))
    path = tmp_path / "artifacts" / "gaussian-certified.npz"
    content = bytearray(path.read_bytes())
    content[4000] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(MissingPartError, match="damaged"):
        artifact.take("losses")


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run" / "artifacts").mkdir(parents=True)
    np.savez(tmp_path / "secret-certified.npz", losses=np.ones(2))
    artifact = Artifact(tmp_path / "run", attention="../../secret", recipe="certified")
    with pytest.raises(MissingPartError, match="stored no arrays"):
        artifact.take("losses")


def test_what_is_left_out_is_gathered_by_reason(tmp_path: Path) -> None:
    first = stored(tmp_path, losses=np.ones(2))
    others = [Artifact(tmp_path, attention=kind, recipe="paper") for kind in ("gaussian", "dot_product")]
    built, left_out = collect([first, *others], lambda artifact: len(artifact.take("losses")[0]))
    assert [(artifact.attention, value) for artifact, value in built] == [("gaussian", 2)]
    words = "Left out: Gaussian (paper), Dot-product (paper), because the run stored no arrays for figures."
    assert left_out == (words,)
