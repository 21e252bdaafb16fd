from pathlib import Path

import pytest

from invattn.cli.main import main


def test_the_page_is_written_and_its_path_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("invattn.experiments.merged.page.write_report", lambda folder: folder / "report.html")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"page: {tmp_path / 'report.html'}\n"


def test_a_folder_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    text = capsys.readouterr().err
    assert "results.json does not exist" in text
    assert text.count("\n") == 1
