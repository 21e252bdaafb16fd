from pathlib import Path

import pytest

from invattn import DataError
from invattn.experiments.kit.output import check_output, make_folder


def test_a_new_folder_is_accepted_and_not_made(tmp_path: Path) -> None:
    check_output(tmp_path)
    check_output(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_a_file_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "file" / "far" / "below"):
        with pytest.raises(DataError, match=r"not a folder\. Choose another --output") as caught:
            check_output(path)
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match="cannot be made"):
            make_folder(path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a folder"):
        check_output(tmp_path / "link" / "below")


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DataError, match="no permission"):
        check_output(tmp_path / "new")
