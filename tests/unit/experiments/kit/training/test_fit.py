import math
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invattn._errors import DataError
from invattn.experiments.kit.progress import SilentProgress
from invattn.experiments.kit.training.checkpoint import AtomicCheckpointIO
from invattn.experiments.kit.training.fit import FitResult, fit
from invattn.experiments.kit.training.interruption import Interrupted
from invattn.experiments.kit.training.loader import ResumableLoader
from invattn.experiments.reconstruction.training import FixedTargetRegression

STEPS = 9  # 3 epochs of 3 steps


class Recorder(SilentProgress):
    """Counts what it is told; runs a function at one step."""

    def __init__(self, action: Any = None, at: int = -1) -> None:
        self.done = 0
        self.total = 0
        self.ended = 0
        self._action, self._at = action, at

    def begin(self, task: str, *, total: int) -> None:
        self.total = total

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.done += steps
        if self.done == self._at:
            self._action()

    def end(self) -> None:
        self.ended += 1


class NoisyNet(nn.Module):
    """Small, with a buffer that training changes, as power iteration does."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 5))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return x + self.net(x)


def make_module(*, lr: float = 0.01) -> FixedTargetRegression:
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = NoisyNet()
    return FixedTargetRegression(model, torch.randn(4, 5, generator=generator), lr=lr)


def make_loader(bad_step: int = -1) -> ResumableLoader:
    data = torch.randn(13, 5, generator=torch.Generator().manual_seed(6))

    def sample(index: Tensor, epoch: int) -> Tensor:
        noise = torch.rand(4, 5, generator=torch.Generator().manual_seed(int(index[0]) + 100 * epoch))
        if bad_step >= 0 and epoch == bad_step // 3:
            return torch.full((4, 5), torch.inf)
        return data[index] + noise

    return ResumableLoader(sample, num_samples=13, batch_size=4, epochs=3, seed=1)


def run(module: FixedTargetRegression, path: Path, *, resume: bool = False, **options: Any) -> FitResult:
    progress = options.pop("progress", SilentProgress())
    loader = options.pop("loader", make_loader())
    return fit(module, loader, checkpoint=path, resume=resume, progress=progress, **options)


def saved(path: Path) -> dict[str, Any]:
    return AtomicCheckpointIO().load_checkpoint(path)


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_fit_equals_a_plain_loop(tmp_path: Path) -> None:
    module, reference = make_module(), make_module()
    result = run(module, tmp_path / "state.ckpt")
    optimizer = torch.optim.Adam(reference.model.parameters(), lr=0.01)
    losses = []
    for batch in make_loader():
        loss = (reference.model(batch.images) - reference.target).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    for name, value in reference.model.state_dict().items():
        assert torch.equal(module.model.state_dict()[name], value), name
    expected = [sum(losses[i : i + 3]) / 3 for i in (0, 3, 6)]
    assert result.losses == pytest.approx(expected, rel=1e-6)
    assert result.stopped_at is None
    assert result.seconds > 0


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_stopping_at_any_step_and_resuming_changes_nothing(tmp_path: Path, stop: int) -> None:
    whole = make_module()
    expected = run(whole, tmp_path / "whole.ckpt")
    with pytest.raises(Interrupted, match="state is in"):
        run(make_module(), tmp_path / "state.ckpt", progress=Recorder(interrupt, at=stop), save_interval=1e9)
    assert saved(tmp_path / "state.ckpt")["global_step"] == stop
    module, progress = make_module(), Recorder()
    result = run(module, tmp_path / "state.ckpt", resume=True, progress=progress)
    assert result.losses == expected.losses
    assert_same(dict(module.state_dict()), dict(whole.state_dict()))
    left, right = saved(tmp_path / "state.ckpt"), saved(tmp_path / "whole.ckpt")
    assert left["global_step"] == right["global_step"] == STEPS
    assert_same(left["optimizer_states"], right["optimizer_states"])
    assert progress.done == progress.total == STEPS


def test_stopping_several_times_changes_nothing(tmp_path: Path) -> None:
    whole = make_module()
    run(whole, tmp_path / "whole.ckpt")
    for stop in (1, 4, 5):
        with pytest.raises(Interrupted):
            run(make_module(), tmp_path / "state.ckpt", resume=True, progress=Recorder(interrupt, at=stop))
    module = make_module()
    run(module, tmp_path / "state.ckpt", resume=True)
    assert_same(dict(module.state_dict()), dict(whole.state_dict()))


def test_without_resume_the_training_starts_again(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(make_module(), tmp_path / "state.ckpt", progress=Recorder(interrupt, at=4))
    progress = Recorder()
    run(make_module(), tmp_path / "state.ckpt", progress=progress)
    assert progress.done == STEPS


def test_a_second_interrupt_stops_at_once_and_resumes_from_the_last_save(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    whole = make_module()
    run(whole, tmp_path / "whole.ckpt")
    progress = Recorder(twice, at=5)
    with pytest.raises(Interrupted, match="at once"):
        run(make_module(), tmp_path / "state.ckpt", progress=progress, save_interval=1e9)
    assert progress.ended == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    module = make_module()
    run(module, tmp_path / "state.ckpt", resume=True)
    assert_same(dict(module.state_dict()), dict(whole.state_dict()))


def test_a_keyboard_interrupt_without_a_signal_is_reported_too(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(make_module(), tmp_path / "state.ckpt", progress=Recorder(stop, at=2))
    assert (tmp_path / "state.ckpt").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_outside_of_the_main_thread(tmp_path: Path) -> None:
    results: list[FitResult] = []
    thread = threading.Thread(target=lambda: results.append(run(make_module(), tmp_path / "state.ckpt")))
    thread.start()
    thread.join()
    assert len(results) == 1
    assert all(math.isfinite(loss) for loss in results[0].losses)


def test_a_loss_that_is_not_finite_ends_the_training_with_the_last_weights(tmp_path: Path) -> None:
    module = make_module()
    result = run(module, tmp_path / "state.ckpt", loader=make_loader(bad_step=3))
    assert result.stopped_at == 3
    assert math.isfinite(result.losses[0])
    assert all(math.isnan(loss) for loss in result.losses[1:])
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_nothing_is_written_but_the_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(make_module(), tmp_path / "state.ckpt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.ckpt"]
    out, err = capfd.readouterr()
    assert out == err == ""


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match="damaged"):
        run(make_module(), tmp_path / "state.ckpt", resume=True)


def test_the_constraint_after_each_step_is_registered(tmp_path: Path) -> None:
    def clamp(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        def hook(*args: object) -> None:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.clamp_(-0.01, 0.01)

        optimizer.register_step_post_hook(hook)

    base = make_module()
    module = FixedTargetRegression(base.model, base.target, lr=0.01, after_step=clamp)
    run(module, tmp_path / "state.ckpt")
    assert max(float(p.detach().abs().max()) for p in module.model.parameters()) <= 0.01 + 1e-9


def test_a_target_of_another_shape_is_refused(tmp_path: Path) -> None:
    module = FixedTargetRegression(make_module().model, torch.zeros(1, 5), lr=0.01)
    with pytest.raises(ValueError, match="shape of the output"):
        run(module, tmp_path / "state.ckpt")
