"""Training on masks: the loss, the learning rate, resuming, the TensorBoard log."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from invattn.experiments.camouflage.training import MaskTraining, PeakMemory, preview
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.fit import fit
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.kit.training.module import EventLog


class Stop(SilentProgress):
    """Presses Ctrl-C after some steps."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.left -= steps
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


class Images:
    """Bright squares on noise; the mask is where the square is."""

    def __call__(self, index: Tensor, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(12, 4, 8, 8, generator=generator) * 0.5
        images[:, 3] = 0
        for number in range(12):
            images[number, :, number % 4 : number % 4 + 3, 2:6] = 1.0
        return images[index]


def loader(**changes: int) -> ResumableLoader:
    return ResumableLoader(Images(), **({"num_samples": 12, "batch_size": 3, "epochs": 5, "seed": 1} | changes))


def training(**changes: float) -> MaskTraining:
    torch.manual_seed(0)
    return MaskTraining(nn.Conv2d(3, 1, 3, padding=1), **({"lr": 0.05, "steps_per_epoch": 4} | changes))  # type: ignore[arg-type]


def test_the_loss_is_the_mean_cross_entropy_of_pixels(tmp_path: Path) -> None:
    module = training(lr=0.0001)
    with torch.no_grad():
        for weight in module.network.parameters():
            weight.zero_()
    result = fit(module, loader(epochs=1), checkpoint=tmp_path / "a.ckpt", resume=False, progress=SilentProgress())
    # Logits of 0 cost log 2 a pixel, whatever the mask; four tiny steps change that little.
    assert result.losses == pytest.approx([math.log(2)], abs=2e-3)


def test_the_loss_falls_and_the_rate_decays_by_epoch(tmp_path: Path) -> None:
    module = training(decay=0.9)
    shown = Images()(torch.arange(2), 0)
    log = EventLog(tmp_path / "log", draw=lambda: preview(module, shown), name="image, mask, map", every=4)
    result = fit(
        module, loader(), checkpoint=tmp_path / "a.ckpt", resume=False, progress=SilentProgress(), callbacks=[log]
    )
    assert result.losses[-1] < 0.9 * result.losses[0]
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["_last_lr"] == [pytest.approx(0.05 * 0.9**5)]
    logged = EventAccumulator(str(tmp_path / "log"))
    logged.Reload()
    assert [event.value for event in logged.Scalars("loss")] == pytest.approx(module.step_losses)
    rates = [event.value for event in logged.Scalars("learning_rate")]
    assert rates == pytest.approx([0.05 * 0.9 ** (step / 4) for step in range(20)])
    assert [event.step for event in logged.Images("image, mask, map")][-1] == 20


def test_a_resumed_training_ends_with_equal_weights(tmp_path: Path) -> None:
    whole = training(decay=0.7)
    fit(whole, loader(), checkpoint=tmp_path / "whole.ckpt", resume=False, progress=SilentProgress())
    with pytest.raises(Interrupted):
        fit(training(decay=0.7), loader(), checkpoint=tmp_path / "part.ckpt", resume=False, progress=Stop(7))
    resumed = training(decay=0.7)
    fit(resumed, loader(), checkpoint=tmp_path / "part.ckpt", resume=True, progress=SilentProgress())
    assert len(resumed.step_losses) == 20
    assert all(
        torch.equal(one, other)
        for one, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True)
    )


def test_a_gradient_that_is_not_finite_makes_no_step(tmp_path: Path) -> None:
    module = training()
    weight = next(module.network.parameters())
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = weight.detach().clone()
    result = fit(module, loader(), checkpoint=tmp_path / "a.ckpt", resume=False, progress=SilentProgress())
    assert result.stopped_at == 0
    assert result.stopped_in == "the gradient of weight"
    assert torch.equal(weight, before)


def test_the_preview_shows_images_masks_and_maps_and_changes_nothing() -> None:
    module, shown = training(), Images()(torch.arange(2), 0)
    module.train()
    picture = preview(module, shown)
    assert picture.shape == (3, 24, 16)
    assert torch.equal(picture[:, :8], torch.cat([shown[0, :3], shown[1, :3]], dim=-1))
    assert torch.equal(picture[:, 8:16, :8], shown[0, 3:].expand(3, -1, -1))
    assert module.network.training


def test_peak_memory_sees_what_was_allocated_and_freed() -> None:
    peak = PeakMemory(on_gpu=False)
    before = peak.bytes()
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    del block
    assert peak.bytes() >= before
    assert 2**24 < peak.bytes() < 2**40
