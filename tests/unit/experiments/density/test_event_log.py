"""The TensorBoard log: what it holds, that resuming appends to it, and that training does not notice it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from invattn._errors import ConvergenceError
from invattn.bijections import initialize
from invattn.experiments.density.points import PointSets
from invattn.experiments.density.training import SHOWN, MaximumLikelihood, picture_of_sets, sample_picture
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.fit import fit
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.kit.training.module import EventLog
from invattn.experiments.kit.training.optimisation import Optimisation
from invattn.flows import Flow, StandardNormal, token_flow

STEPS, BATCH = 6, 4


class Stopper(SilentProgress):
    """Sends Ctrl-C after a step."""

    def __init__(self, at: int) -> None:
        self.at, self.done = at, 0

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.done += steps
        if self.done == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def train(folder: Path, *, log: bool = True, stop: int = -1, resume: bool = False) -> MaximumLikelihood:
    torch.manual_seed(0)
    chain = token_flow(2, attention="gaussian", blocks=1, attention_layers=1, hidden_channels=(4,))
    initialize(chain, PointSets(seed=9)(torch.arange(16)))
    module = MaximumLikelihood(Flow(chain, StandardNormal((32, 2))), optimisation=Optimisation(steps=STEPS, warm_up=2))
    loader = ResumableLoader(PointSets(seed=1), num_samples=STEPS * BATCH, batch_size=BATCH, epochs=1, seed=1)
    log_of_module = EventLog(
        folder / "log", draw=lambda: sample_picture(module.averaged_flow, seed=1), name="samples", every=2
    )
    callbacks = [log_of_module] if log else []
    state, progress = folder / "state.ckpt", Stopper(stop)
    fit(module, loader, checkpoint=state, resume=resume, progress=progress, callbacks=callbacks, save_interval=1e9)
    return module


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "log"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_the_log_holds_every_step_and_pictures(tmp_path: Path) -> None:
    module = train(tmp_path)
    found = events(tmp_path)
    losses = found.Scalars("loss/nats_per_dim")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in losses] == pytest.approx(module.step_losses)
    rates = [event.value for event in found.Scalars("learning_rate")]
    assert rates[:3] == pytest.approx([0.0025, 0.005, 0.005])
    assert 0 < rates[-1] < 0.001
    assert all(event.value > 0 for event in found.Scalars("gradient_norm"))
    assert [event.step for event in found.Images("samples")] == [2, 4, 6]
    assert (found.Images("samples")[0].height, found.Images("samples")[0].width) == (96, 97 * SHOWN - 1)


def test_training_does_not_notice_the_log(tmp_path: Path) -> None:
    logged, plain = train(tmp_path / "a"), train(tmp_path / "b", log=False)
    assert logged.step_losses == plain.step_losses
    for name, value in plain.state_dict().items():
        assert torch.equal(value, logged.state_dict()[name]), name
    assert not (tmp_path / "b" / "log").exists()


def test_resuming_appends_and_drops_what_was_after_the_last_save(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=2)
    shutil.copy(tmp_path / "state.ckpt", tmp_path / "early.ckpt")
    with pytest.raises(Interrupted):
        train(tmp_path, stop=4, resume=True)
    shutil.copy(tmp_path / "early.ckpt", tmp_path / "state.ckpt")
    module = train(tmp_path, resume=True)
    assert len(list((tmp_path / "log").iterdir())) == 3
    losses = events(tmp_path).Scalars("loss/nats_per_dim")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in losses] == pytest.approx(module.step_losses)


def test_a_flow_that_cannot_be_inverted_yet_has_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(flow: Flow, count: int, *, seed: int) -> Tensor:
        raise ConvergenceError("no inverse")

    monkeypatch.setattr("invattn.experiments.density.training.sample_sets", fail)
    module = train(tmp_path)
    assert len(module.step_losses) == STEPS
    assert events(tmp_path).Tags()["images"] == []


def test_sets_become_dots_where_their_points_are() -> None:
    corner = torch.tensor([[[6.4, 6.4], [99.0, 0.0], [float("nan"), 0.0]], [[-6.4, -6.4], [0.0, -99.0], [99.0, 99.0]]])
    picture = picture_of_sets(corner)
    assert picture.shape == (3, 96, 193)
    rows, columns = np.nonzero((picture.transpose(1, 2, 0) == (31, 119, 180)).all(axis=2))
    assert len(rows) == 8
    assert rows[columns < 96].max() <= 2
    assert columns[columns < 96].min() >= 93
    assert rows[columns > 96].min() >= 93
    assert columns[columns > 96].max() <= 99


def test_pictures_need_a_positive_distance(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        EventLog(tmp_path, draw=lambda: None, name="samples", every=0)
