"""Maximum likelihood training: against a plain loop, stopped and resumed, and with losses that are not finite."""

from __future__ import annotations

import copy
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invattn._errors import DataError
from invattn.bijections import initialize
from invattn.experiments.density.data import bits
from invattn.experiments.density.points import PointSets
from invattn.experiments.density.training import MaximumLikelihood
from invattn.experiments.kit.progress import SilentProgress as Silent
from invattn.experiments.kit.training.checkpoint import AtomicCheckpointIO
from invattn.experiments.kit.training.fit import FitResult, fit
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.kit.training.loader import ResumableLoader, seeded
from invattn.experiments.kit.training.optimisation import Optimisation, cosine_with_warm_up
from invattn.flows import Flow, StandardNormal, token_flow
from invattn.logdet import PowerSeries

STEPS, BATCH = 6, 4


class Stopper(Silent):
    """Sends Ctrl-C after a step; keeps the notes."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.done, self.notes = at, 0, [""]

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.done += steps
        self.notes.append(note)
        if self.done == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def make_flow() -> Flow:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = token_flow(
            2,
            attention="gaussian",
            blocks=1,
            attention_layers=1,
            hidden_channels=(4,),
            log_det_estimator=PowerSeries(terms=3),
        )
    initialize(made, PointSets(seed=9)(torch.arange(16)))
    return Flow(made, StandardNormal((32, 2)))


def make_module(**options: Any) -> MaximumLikelihood:
    own = {name: options.pop(name) for name in ("run_key", "unit") if name in options}
    settings = {"steps": STEPS, "lr": 0.01, "warm_up": 2, "averaging": 0.5, **options}
    return MaximumLikelihood(make_flow(), optimisation=Optimisation(**settings), seed=3, **own)


def make_loader(sample: Any = None) -> ResumableLoader:
    sets = PointSets(seed=1) if sample is None else sample
    return ResumableLoader(sets, num_samples=STEPS * BATCH, batch_size=BATCH, epochs=1, seed=1)


def run(module: MaximumLikelihood, path: Path, *, resume: bool = False, **options: Any) -> FitResult:
    loader, progress = options.pop("loader", make_loader()), options.pop("progress", Silent())
    return fit(module, loader, checkpoint=path, resume=resume, progress=progress, **options)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamax", torch.optim.Adamax)])
def test_training_equals_a_plain_loop_and_the_average_follows(name: str, kind: Any, tmp_path: Path) -> None:
    module, flow = make_module(clip=0.5, optimizer=name), make_flow()
    result = run(module, tmp_path / "state.ckpt")
    average = copy.deepcopy(flow)
    optimizer = kind(flow.parameters(), lr=0.01)
    losses, norms = [], []
    for step, batch in enumerate(make_loader()):
        rate = (step + 1) / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 4))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * rate
        with seeded(3, "probes", step):
            loss = -flow.log_prob(batch.images).mean() / 64
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(float(nn.utils.clip_grad_norm_(flow.parameters(), 0.5)))
        optimizer.step()
        decay = min(0.5, (2 + step) / (11 + step))
        for mean, now in zip(average.parameters(), flow.parameters(), strict=True):
            mean.data = decay * mean.data + (1 - decay) * now.data
        losses.append(loss.item())
    assert max(norms) > 0.5, "the clipping must have something to do"
    assert module.step_losses == pytest.approx(losses, rel=1e-6)
    for mine, theirs in ((module.flow, flow), (module.average, average)):
        for left, right in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in module.average.parameters())
    assert not torch.equal(next(module.average.parameters()), next(module.flow.parameters()))
    assert result.stopped_at is None
    assert 0 < result.cpu_seconds < 60


def assert_same(left: Any, right: Any) -> None:
    if isinstance(left, Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


@pytest.mark.parametrize("stop", [1, 4, STEPS])
def test_stopping_and_resuming_changes_no_bit(tmp_path: Path, stop: int) -> None:
    whole = make_module()
    run(whole, tmp_path / "whole.ckpt")
    with pytest.raises(Interrupted, match="state is in"):
        run(make_module(), tmp_path / "state.ckpt", progress=Stopper(stop), save_interval=1e9)
    torch.rand(7)  # the state of the default generator must not matter
    module = make_module()
    run(module, tmp_path / "state.ckpt", resume=True)
    assert module.step_losses == whole.step_losses
    assert_same(dict(module.state_dict()), dict(whole.state_dict()))
    assert_same(dict(module.average.state_dict()), dict(whole.average.state_dict()))
    left, right = (AtomicCheckpointIO().load_checkpoint(tmp_path / name) for name in ("state.ckpt", "whole.ckpt"))
    for name in ("optimizer_states", "lr_schedulers"):
        assert_same(left[name], right[name])


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(make_module(run_key="a"), tmp_path / "state.ckpt", progress=Stopper(2))
    with pytest.raises(DataError, match="other options"):
        run(make_module(run_key="b"), tmp_path / "state.ckpt", resume=True)


def test_a_loss_that_is_not_finite_names_the_part_and_leaves_the_weights(tmp_path: Path) -> None:
    module = make_module()
    good = {name: value.clone() for name, value in module.state_dict().items()}

    class Poisoned(Stopper):
        def advance(self, steps: int = 1, *, note: str = "") -> None:
            super().advance(steps, note=note)
            if self.done == 3:
                good.update({name: value.clone() for name, value in module.state_dict().items()})
                with torch.no_grad():
                    module.flow.bijection.bijections[1].g.output.bias.fill_(math.inf)  # type: ignore[index,union-attr]

    result = run(module, tmp_path / "state.ckpt", progress=Poisoned(), save_interval=1e9)
    assert result.stopped_at == 3
    assert result.stopped_in == "part 1 of the flow (gaussian attention)"
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, good[name])]
    assert changed == ["flow.bijection.bijections.1.g.output.bias"]


def test_data_that_are_not_finite_are_named(tmp_path: Path) -> None:
    def sample(index: Tensor, epoch: int) -> Tensor:
        return torch.full((len(index), 32, 2), math.nan)

    assert run(make_module(), tmp_path / "state.ckpt", loader=make_loader(sample)).stopped_in == "the data"


def test_a_gradient_that_is_not_finite_makes_no_step(tmp_path: Path) -> None:
    module = make_module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.flow.bijection.bijections[3].g.layers[0].bias.register_hook(lambda grad: grad * math.nan)  # type: ignore[index,union-attr]
    result = run(module, tmp_path / "state.ckpt")
    assert result.stopped_at == 0
    assert result.stopped_in == "the gradient of bijection.bijections.3.g.layers.0.bias"
    assert_same(before, dict(module.state_dict()))


def test_the_progress_shows_nats_per_dimension(tmp_path: Path) -> None:
    progress = Stopper()
    module = make_module()
    run(module, tmp_path / "state.ckpt", progress=progress)
    assert progress.notes[-1] == f"{sum(module.step_losses) / STEPS:.3f} nats/dim"


def test_the_progress_of_scaled_images_shows_bits_per_dimension(tmp_path: Path) -> None:
    progress = Stopper()
    module = make_module(unit=bits(levels=256))
    run(module, tmp_path / "state.ckpt", progress=progress)
    assert progress.notes[-1] == f"{sum(module.step_losses) / STEPS / math.log(2) + 8:.3f} bits/dim"


def test_the_rate_rises_linearly_and_falls_to_zero() -> None:
    factor = cosine_with_warm_up(10, warm_up=4)
    assert [factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factor(7) == pytest.approx(0.5)
    assert factor(10) == pytest.approx(0, abs=1e-12)
    assert all(cosine_with_warm_up(1, warm_up=20)(step) <= 1 for step in range(3))


def test_bfloat16_trains_to_nearly_the_same_losses_with_float32_weights(tmp_path: Path) -> None:
    """8 bits of a factor: losses of 64 numbers move by about 0.1 / 64."""
    plain, rough = make_module(), make_module()
    run(plain, tmp_path / "a.ckpt")
    run(rough, tmp_path / "b.ckpt", precision="bf16")
    assert rough.step_losses != plain.step_losses
    assert rough.step_losses == pytest.approx(plain.step_losses, abs=0.01)
    assert all(value.dtype == torch.float32 for value in rough.parameters())
    with pytest.raises(ValueError, match="unknown precision 'fp16'"):
        run(make_module(), tmp_path / "c.ckpt", precision="fp16")


def test_a_norm_beyond_floating_point_is_no_gradient_of_zero(tmp_path: Path) -> None:
    """Finite gradients whose squares overflow: scaled to the largest norm they would be 0, silently."""
    module = make_module()
    module.flow.bijection.bijections[3].g.layers[0].bias.register_hook(lambda grad: grad * 0 + 1e38)  # type: ignore[index,union-attr]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert run(module, tmp_path / "state.ckpt").stopped_in == "the norm of the gradient"
    assert_same(before, dict(module.state_dict()))


def test_an_average_needs_a_decay_below_one() -> None:
    with pytest.raises(ValueError, match="averaging: expected a number, at least 0 and below 1; got 1"):
        make_module(averaging=1.0)
