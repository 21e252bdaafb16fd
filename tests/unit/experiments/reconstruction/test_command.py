from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from invattn.cli.main import main
from invattn.experiments.kit.progress import Progress
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.reconstruction import run as reconstruction
from invattn.experiments.reconstruction.command import show_results
from invattn.experiments.reconstruction.record import ReconstructionMetrics, ReconstructionRecord, ReconstructionResult
from invattn.experiments.reconstruction.run import ReconstructionConfig


def record() -> ReconstructionRecord:
    metrics = ReconstructionMetrics(
        mse=84.872,
        mse_max=1234.5,
        mse_std=0.0,
        ssim=0.988,
        v_score=0.964,
        converged=0.75,
        non_finite=0,
        evaluations_mean=8.25,
        evaluations_max=13,
    )
    common = {"dataset": "cifar10", "image_size": 32, "images": 8, "repeats": 1, "metrics": metrics}
    certified = ReconstructionResult(
        attention="gaussian", recipe="certified", certificate={"bound": 0.9, "norm": "inf,2"}, **common
    )
    released = ReconstructionResult(
        attention="dot_product", recipe="released", paper={"mse": 169.032, "ssim": 0.977, "v_score": 0.37812}, **common
    )
    data = {"name": "cifar10", "fingerprint": "0", "train": 16, "test": 8, "notes": ["[2] images were grey"]}
    return ReconstructionRecord(command="", seed=0, versions={}, data=data, settings={}, results=[certified, released])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[ReconstructionConfig]:
    """Replace the experiment and the page; collect the configurations that the experiment is given."""
    given: list[ReconstructionConfig] = []

    def run(config: ReconstructionConfig, progress: Progress) -> ReconstructionRecord:
        progress.begin("training", total=1)
        progress.end()
        given.append(config)
        return record()

    monkeypatch.setattr(reconstruction, "run", run)
    monkeypatch.setattr(
        "invattn.experiments.reconstruction.page.page.write_report", lambda folder: folder / "report.html"
    )
    return given


def test_options_reach_the_experiment(calls: list[ReconstructionConfig], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("attention: dot_product\nepochs: 5\nimage_size: original\nlr: 0.01\n")
    arguments = f"--config {file} --epochs 6 --recipe certified,released --data-root d --iterations 9 --resume"
    assert main(["reconstruct", *arguments.split(), "--output", str(tmp_path / "out")]) == 0
    assert calls == [
        ReconstructionConfig(
            attention="dot_product",
            epochs=6,
            image_size="original",
            lr=0.01,
            recipe="certified,released",
            data_root=Path("d"),
            iterations=9,
            resume=True,
            output=tmp_path / "out",
        )
    ]


def test_a_printed_configuration_gives_the_same_run(
    calls: list[ReconstructionConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reconstruct", "--recipe", "paper,released", "--epochs", "3", "--lipschitz", "0.8", "--output", "out"]
    with pytest.raises(SystemExit):
        main([*arguments, "--print_config"])
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out)
    assert main(["reconstruct", "--config", str(tmp_path / "run.yaml")]) == 0
    assert main(arguments) == 0
    assert calls[0] == calls[1]


def test_defaults_are_those_of_the_experiment(calls: list[ReconstructionConfig]) -> None:
    assert main(["reconstruct", "--output", "out"]) == 0
    for field in fields(ReconstructionConfig):
        if field.default is not MISSING:
            assert getattr(calls[0], field.name) == field.default, field.name


def test_results_and_page_are_printed(
    calls: list[ReconstructionConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"page: {tmp_path / 'report.html'}"
    assert lines[-2] == "note: [2] images were grey"
    certified = next(line for line in lines if "certified" in line)
    released = next(line for line in lines if "released" in line)
    for part in ("gaussian", "96.4%", "75.0%", "84.9", "1.23e+03", "8.2 (max 13)", "0.900"):
        assert part in certified
    assert "37.8%" in released
    assert "none" in released


def test_the_papers_column_is_left_out_where_nothing_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    both = record()
    show_results(both)
    assert "paper's" in capsys.readouterr().out
    show_results(replace(both, results=both.results[:1]))
    shown = capsys.readouterr().out
    assert "gaussian" in shown
    assert "paper's" not in shown


def test_an_interrupted_run_says_how_to_continue(
    calls: list[ReconstructionConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: ReconstructionConfig, progress: Progress) -> ReconstructionRecord:
        raise Interrupted("stopped at step 3; run the same command with --resume")

    monkeypatch.setattr(reconstruction, "run", stop)
    assert main(["reconstruct", "--output", "out"]) == 130
    assert capsys.readouterr().err.strip().endswith("stopped at step 3; run the same command with --resume")
