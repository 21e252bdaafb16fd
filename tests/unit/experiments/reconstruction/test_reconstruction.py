import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invattn import DataError
from invattn.experiments.kit.data.reading import ImageRequest
from invattn.experiments.kit.data.sets import ImageData
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.reconstruction import figures as figure_data
from invattn.experiments.reconstruction import run as reconstruction
from invattn.experiments.reconstruction.config import Variant
from invattn.experiments.reconstruction.record import ReconstructionRecord
from invattn.experiments.reconstruction.run import ReconstructionConfig, run, run_variants
from invattn.hub import load_model
from invattn.recipes import Paper, Released

TRAIN, TEST = 7, 5


class Recorder(SilentProgress):
    """Notes what it is told; runs a function when the named task has made ``at`` steps."""

    def __init__(self, action: Callable[[], None] | None = None, *, task: str = "", at: int = 1) -> None:
        self.tasks: list[str] = []
        self.messages: list[str] = []
        self._action, self._task, self._at, self._done = action, task, at, 0

    def begin(self, task: str, *, total: int) -> None:
        self.tasks.append(task)
        self._done = 0

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self._done += steps
        if self._action is not None and self.tasks[-1] == self._task and self._done == self._at:
            self._action()

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(autouse=True, scope="module")
def tiny_data() -> Iterator[None]:
    """Random images of 12 x 12 pixels in the place of a data set, and short curves."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (TRAIN + TEST, 3, 12, 12), dtype=torch.uint8, generator=generator)

    def load(request: ImageRequest) -> ImageData:
        return ImageData(request.name, pixels[:TRAIN], pixels[TRAIN:], "fingerprint", ("a note",), "12x12")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "load_reconstruction_data", load)
        patch.setattr(figure_data, "TRACE_STEPS", 3)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run of the released form writes."""
    output = tmp_path_factory.mktemp("whole")
    run(make(output, recipe="released"), SilentProgress())
    return output


def make(output: Path, **options: Any) -> ReconstructionConfig:
    usual = {"attention": "gaussian", "epochs": 3, "batch_size": 2, "repeats": 2, "data": "photos"}
    return ReconstructionConfig(output=output, **{**usual, **options})


def numbers(output: Path) -> dict[str, Any]:
    """Everything that a run wrote and that must not depend on how often it was stopped: all but wall times."""
    content: dict[str, Any] = json.loads((output / "results.json").read_text())
    for result in content["results"]:
        del result["seconds"]
    return content


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_writes_the_record_the_models_and_the_figures_data(tmp_path: Path) -> None:
    output = tmp_path / "a" / "out"
    record = run(make(output, recipe="certified,released", attention="gaussian,pointwise"), SilentProgress())
    assert repr(ReconstructionRecord.read(output / "results.json").to_json()) == repr(record.to_json())
    names = [f"{kind}-{recipe}" for recipe in ("certified", "released") for kind in ("gaussian", "pointwise")]
    model_files = {"certificate.json", "config.json", "model.safetensors"}
    expected = {"results.json"} | {f"artifacts/{name}.npz" for name in names}
    expected |= {f"model/{name}/{file}" for name in names for file in model_files}
    expected |= {f"cells/{name}-{repeat}.json" for name in names for repeat in (0, 1)}
    expected |= {f"cells/{name}-{repeat}/{file}" for name in names for repeat in (0, 1) for file in model_files}
    assert files(output) == expected
    assert [(result.attention, result.recipe) for result in record.results] == [
        ("gaussian", "certified"),
        ("pointwise", "certified"),
        ("gaussian", "released"),
        ("pointwise", "released"),
    ]
    certified = record.results[0]
    assert (certified.images, certified.repeats, certified.dataset) == (TEST, 2, "photos")
    assert (certified.metrics.v_score, certified.metrics.converged) == (1.0, 1.0)
    assert certified.metrics.mse_max < 1e-6
    assert certified.certificate is not None
    assert certified.certificate["bound"] <= 0.9
    assert record.results[2].certificate is None
    assert record.results[2].metrics.evaluations_max == 51
    assert [len(losses) for losses in certified.train_loss] == [3, 3]
    assert certified.train_loss[0] != certified.train_loss[1]
    assert (record.data["train"], record.data["test"], record.data["notes"]) == (TRAIN, TEST, ["a note"])
    with np.load(output / "artifacts" / "gaussian-certified.npz") as arrays:
        assert arrays["losses"].tolist() == certified.train_loss[0]
    model = load_model(output / "model" / "gaussian-certified").model
    assert model.certified


def test_the_same_command_skips_finished_cells_and_gives_the_same_record(tmp_path: Path) -> None:
    first = run(make(tmp_path), SilentProgress())
    progress = Recorder()
    second = run(make(tmp_path), progress)
    assert repr(first) == repr(second)
    assert progress.tasks == []
    assert progress.messages == [f"gaussian-certified-{k}: finished before, skipped" for k in (0, 1)]
    (tmp_path / "artifacts" / "gaussian-certified.npz").unlink()
    run(make(tmp_path), progress)
    assert progress.tasks == ["train gaussian-certified-0", "invert gaussian-certified-0"]


def test_one_more_repeat_uses_the_finished_ones(tmp_path: Path) -> None:
    run(make(tmp_path, repeats=1), SilentProgress())
    progress = Recorder()
    record = run(make(tmp_path, repeats=2), progress)
    assert progress.tasks[0] == "train gaussian-certified-1"
    assert record.results[0].repeats == 2


def test_two_runs_give_the_same_numbers_and_another_seed_gives_others(tmp_path: Path, whole: Path) -> None:
    torch.manual_seed(123)
    run(make(tmp_path / "b", recipe="released"), SilentProgress())
    run(make(tmp_path / "c", recipe="released", seed=5), SilentProgress())
    assert numbers(whole) == numbers(tmp_path / "b")
    losses = [numbers(output)["results"][0]["train_loss"] for output in (whole, tmp_path / "c")]
    assert losses[0] != losses[1]


def test_a_run_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    run(make(tmp_path, recipe="released"), SilentProgress())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("task", "at"),
    [
        ("train gaussian-released-0", 1),
        ("train gaussian-released-0", 4),
        ("train gaussian-released-0", 9),
        ("invert gaussian-released-0", 2),
        ("train gaussian-released-1", 5),
    ],
)
def test_a_run_that_is_stopped_and_resumed_gives_the_same_numbers(
    tmp_path: Path, whole: Path, task: str, at: int
) -> None:
    stopped = make(tmp_path / "stopped", recipe="released")
    with pytest.raises(Interrupted, match="with --resume to continue") as caught:
        run(stopped, Recorder(interrupt, task=task, at=at))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "stopped" / "results.json").exists()
    assert (tmp_path / "stopped" / "cells" / f"{task.split()[1]}.ckpt").exists()
    run(replace(stopped, resume=True), SilentProgress())
    assert numbers(tmp_path / "stopped") == numbers(whole)
    for name in ("model.safetensors", "certificate.json"):
        model = Path("model") / "gaussian-released" / name
        assert (tmp_path / "stopped" / model).read_bytes() == (whole / model).read_bytes()
    assert not list(tmp_path.rglob("*.ckpt"))


def test_without_resume_an_interrupted_training_starts_again(tmp_path: Path, whole: Path) -> None:
    config = make(tmp_path, recipe="released")
    with pytest.raises(Interrupted):
        run(config, Recorder(interrupt, task="train gaussian-released-0", at=5))
    run(config, SilentProgress())
    assert numbers(tmp_path) == numbers(whole)


@pytest.mark.parametrize("resume", [False, True])
def test_results_of_other_options_stop_the_run_before_it_trains(tmp_path: Path, resume: bool) -> None:
    run(make(tmp_path), SilentProgress())
    before = (tmp_path / "results.json").read_bytes()
    progress = Recorder()
    with pytest.raises(DataError, match="other options"):
        run(make(tmp_path, epochs=4, resume=resume), progress)
    assert progress.tasks == []
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_training_of_other_options_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(make(tmp_path), Recorder(interrupt, task="train gaussian-certified-0", at=5))
    with pytest.raises(DataError, match="run without --resume to train anew"):
        run(make(tmp_path, lr=0.01, resume=True), SilentProgress())


def test_an_output_below_a_file_is_refused_before_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(request: ImageRequest) -> ImageData:
        raise AssertionError("the data were read")

    monkeypatch.setattr(reconstruction, "load_reconstruction_data", load)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="not a folder"):
        run(make(tmp_path / "file" / "out"), SilentProgress())


def test_bad_data_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(request: ImageRequest) -> ImageData:
        raise DataError("bad data")

    monkeypatch.setattr(reconstruction, "load_reconstruction_data", load)
    with pytest.raises(DataError, match="bad data"):
        run(make(tmp_path / "out"), SilentProgress())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_results_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(make(tmp_path), SilentProgress())
    before, names = (tmp_path / "results.json").read_bytes(), files(tmp_path)

    def fail(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(OSError, match="No space left"):
            run(make(tmp_path), SilentProgress())
        with pytest.raises(OSError, match="No space left"):
            run(make(tmp_path, repeats=3), SilentProgress())
    assert (tmp_path / "results.json").read_bytes() == before
    assert files(tmp_path) == names


def test_a_loss_that_is_not_finite_is_reported_and_the_last_weights_are_evaluated(tmp_path: Path) -> None:
    progress = Recorder()
    record = run(make(tmp_path, attention="dot_product", recipe="unconstrained", lr=1e6, repeats=1), progress)
    result = record.results[0]
    assert len(progress.messages) == 1
    assert "not finite at step" in progress.messages[0]
    assert np.isnan(result.train_loss[0][-1])
    assert numbers(tmp_path)["results"][0]["train_loss"][0][-1] is None
    assert result.metrics.v_score == 0.0
    assert np.isfinite(result.metrics.mse)
    assert repr(ReconstructionRecord.read(tmp_path / "results.json").to_json()) == repr(record.to_json())


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    record = run(make(tmp_path, batch_size=64, repeats=1), SilentProgress())
    assert record.settings["batch_size"] == TRAIN
    assert record.data["notes"][-1] == f"only {TRAIN} training images: the batch has {TRAIN}, not 64"


def run_remedies(output: Path) -> ReconstructionRecord:
    variants = [
        Variant("dot_product", Released(), "released"),
        Variant("dot_product", Released(normalize="total"), "remedy-6"),
        Variant("dot_product", Paper(enforce="after_step"), "after-step"),
    ]
    return run_variants(make(output, repeats=1), variants, SilentProgress())


def test_recipes_with_changed_fields_have_their_own_rows(tmp_path: Path) -> None:
    record = run_remedies(tmp_path)
    assert [result.recipe for result in record.results] == ["released", "remedy-6", "after-step"]
    assert load_model(tmp_path / "model" / "dot_product-remedy-6").config.recipe == Released(normalize="total")
    maps = [
        part.weight
        for name, part in load_model(tmp_path / "model" / "dot_product-after-step").model.named_modules()
        if name.endswith((".value", ".output"))
    ]
    assert len(maps) == 2
    for weight in maps:
        assert torch.linalg.matrix_norm(weight.detach(), 2) < 0.95  # 0.9 aimed at by power iteration


def test_two_rows_of_one_name_are_refused(tmp_path: Path) -> None:
    variant = Variant("gaussian", Released(), "x")
    with pytest.raises(ValueError, match="its own label"):
        run_variants(make(tmp_path), [variant, variant], SilentProgress())
